# The web page and the command line, with a Python 3.10 for the vendor's compiler:
#
#   docker build --tag sdconv .
#   docker run --publish 7860:7860 --volume sdconv:/workspace sdconv
#   docker run --volume sdconv:/workspace sdconv sdconv toolchain install tpu-mlir

FROM python:3.10-slim-bookworm AS python310

FROM python:3.11-slim-bookworm

# `sdconv toolchain install` looks for other Pythons in /opt. This one finds its own libpython
# relative to its program and every other library in the same Debian release.
COPY --from=python310 /usr/local /opt/python3.10
# libexpat1 is all that tpu-mlir's libraries want beyond this image and what they bring along.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && /opt/python3.10/bin/python3.10 -c "import ctypes, ensurepip, sqlite3, ssl, venv"

# From PyTorch's own index of CPU builds: a plain request brings gigabytes of CUDA libraries.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0

WORKDIR /app
COPY pyproject.toml README.md gradio_app.py ./
COPY converter converter
COPY passes passes
COPY runtime runtime
COPY sdconv sdconv
COPY targets targets
COPY validate validate
RUN pip install --no-cache-dir --editable ".[torch,ui]"

# Everything that is written (uploads, jobs, templates, toolchains) goes into the volume.
RUN useradd --create-home --uid 1000 sdconv \
    && install --directory --owner sdconv --group sdconv /workspace
USER sdconv
ENV SDCONV_HOME=/workspace/.sdconv \
    GRADIO_ANALYTICS_ENABLED=False \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /workspace
EXPOSE 7860
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/')"]
CMD ["python", "gradio_app.py", "--root", "/workspace"]
