"""How much the page lets its visitors have."""

from dataclasses import asdict, dataclass

from converter.downloads.policy import DownloadPolicy

GB = 10**9


@dataclass(frozen=True)
class Limits:
    """What is allowed. Of those who wait, each visitor has a share, so nobody fills the queue.

    `running` conversions and drawings go on at once, `waiting` wait, `each` may be unfinished of
    one visitor. `quota` is the room in bytes for jobs, uploads and downloads together; `largest`
    that of one file. What nobody used for `keep_days` is removed. An address is given
    `fetch_minutes`, and a picture on a chip's emulator `draw_minutes`.
    """

    running: int = 1
    waiting: int = 20
    each: int = 5
    quota: int = 200 * GB
    largest: int = 20 * GB
    keep_days: float = 30
    fetch_minutes: float = 60
    draw_minutes: float = 10

    @property
    def downloads(self) -> DownloadPolicy:
        """What a visitor's address may reach and bring."""
        return DownloadPolicy(public_only=True, largest=self.largest)

    def to_json(self) -> dict[str, float]:
        """As plain JSON values."""
        return asdict(self)
