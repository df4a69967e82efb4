"""Where the tool keeps what it may make again (cache) and what it installed (data)."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Folder of everything derived: `$SDCONV_HOME/cache`, else the system's cache folder."""
    home = os.environ.get("SDCONV_HOME")
    return Path(home).absolute() / "cache" if home else platformdirs.user_cache_path("sdconv")


def data_folder() -> Path:
    """Folder of toolchains: `$SDCONV_HOME/data`, else the system's folder for user data."""
    home = os.environ.get("SDCONV_HOME")
    return Path(home).absolute() / "data" if home else platformdirs.user_data_path("sdconv")
