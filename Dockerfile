# The web page and the command line, with a Python 3.10 for the vendor's compiler:
#
#   docker build --tag sdconv .
#   docker run --init --publish 8088:7860 --volume "$PWD:/workspace" sdconv
#
# A small image, without the compiler: with the skeletons that ship, or with those made elsewhere, it
# binds bmodels all the same.
#
#   docker build --build-arg TOOLCHAIN= --tag sdconv .
#
# On the vendor's own image, for those who have it anyway:
#
#   docker build --build-arg BASE=vendor --tag sdconv .

ARG BASE=slim

FROM python:3.10.19-slim-bookworm AS python310

FROM python:3.11.14-slim-bookworm AS slim
# `sdconv toolchain install` looks for other Pythons in /opt. This one finds its own libpython
# relative to its program and every other library in the same Debian release.
COPY --from=python310 /usr/local /opt/python3.10
# libexpat1 is all that tpu-mlir's libraries want beyond this image and what they bring along. It is
# not pinned: Debian keeps the newest of a release alone, which is the one without known holes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && /opt/python3.10/bin/python3.10 -c "import ctypes, ensurepip, sqlite3, ssl, venv"

FROM sophgo/tpuc_dev:v3.4 AS vendor
# Ubuntu 22.04 with a Python 3.10; the 3.11 for us comes as a portable build.
ENV UV_PYTHON_INSTALL_DIR=/opt/python \
    VIRTUAL_ENV=/opt/python3.11 \
    PATH=/opt/python3.11/bin:$PATH
RUN python3.10 -m pip install --no-cache-dir uv==0.13.9 \
    && uv python install 3.11.14 \
    && uv venv --seed --python 3.11.14 /opt/python3.11

# hadolint ignore=DL3006
FROM ${BASE} AS requirements
# From PyTorch's own index of CPU builds: a plain request brings gigabytes of CUDA libraries.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
# What is needed changes less often than the code that needs it, which is linked to at the end.
WORKDIR /app
COPY pyproject.toml ./
RUN touch README.md && pip install --no-cache-dir --editable ".[torch,ui]"
# Toolchains belong to the image, everything else that is written into the volume.
ENV XDG_DATA_HOME=/opt/sdconv \
    XDG_CACHE_HOME=/workspace/.cache \
    GRADIO_ANALYTICS_ENABLED=False \
    PYTHONUNBUFFERED=1

FROM requirements AS toolchain
# A requirement of tpu-mlir's, pycocotools, is published as source alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY passes passes
COPY converter converter
COPY targets targets
COPY sdconv sdconv
ARG TOOLCHAIN=tpu-mlir
# The compiler relinks its libraries for each chip, inside its own folder, whoever runs it.
RUN mkdir --parents "$XDG_DATA_HOME" \
    && if [ -n "$TOOLCHAIN" ]; then python -m sdconv toolchain install "$TOOLCHAIN"; fi \
    && chmod --recursive a+rwX "$XDG_DATA_HOME"

FROM requirements AS sdconv
COPY --from=toolchain /opt/sdconv /opt/sdconv
COPY passes passes
COPY converter converter
COPY targets targets
COPY runtime runtime
COPY validate validate
COPY sdconv sdconv
COPY gradio_app.py ./
RUN pip install --no-cache-dir --no-deps --editable . \
    && python -m compileall -q . \
    && useradd --create-home --uid 1000 sdconv \
    && install --directory --owner 1000 --group 1000 /workspace
USER 1000
VOLUME /workspace
EXPOSE 7860
HEALTHCHECK --start-period=60s --interval=30s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/healthy')"]
CMD ["python", "gradio_app.py", "--root", "/workspace"]
