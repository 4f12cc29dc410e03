# The GPU tests and benchmarks in a container. The host needs a driver and the NVIDIA container
# toolkit; CUDA's libraries come as wheels.
#
#   docker build -t asyncnet-gpu .                       # --build-arg CUDA=12 for an older driver
#   docker run --rm --gpus all -v asyncnet-cupy:/cache -v "$PWD/report:/report" asyncnet-gpu
#
# Arguments after the image's name go to pytest. The folder mounted on /report must be writable by
# uid 1000. Other commands: docker run ... --entrypoint asyncnet asyncnet-gpu devices
ARG BASE_TAG=3.11-slim-bookworm
FROM python:${BASE_TAG}

# 12 or 13: the major version of CUDA that the host's driver supports (the first line of nvidia-smi).
ARG CUDA=13

RUN useradd --create-home --uid 1000 asyncnet \
    && install -d -o asyncnet /cache /report /app
WORKDIR /app

# Metadata first: the layer with CUDA's libraries (about 4 GB) is rebuilt only when it changes.
COPY pyproject.toml README.md LICENSE ./
# Versions are bounded in pyproject.toml.
# hadolint ignore=DL3013
RUN mkdir asyncnet_gpu kernels && touch asyncnet_gpu/__init__.py \
    && pip install --no-cache-dir ".[cuda${CUDA}x,sanitizer${CUDA},gpu-test]" \
    && pip uninstall --yes asyncnet-gpu
COPY requirements requirements
RUN pip install --no-cache-dir --no-deps -r requirements/models.txt -r requirements/cudnn.txt
COPY --chown=asyncnet . .
RUN pip install --no-cache-dir --no-deps --editable .

ARG GIT_COMMIT=unknown
ENV ASYNCNET_COMMIT=${GIT_COMMIT} CUPY_CACHE_DIR=/cache/cupy REPORT_DIR=/report \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility PYTHONUNBUFFERED=1
USER 1000
VOLUME ["/cache", "/report"]
ENTRYPOINT ["ci/gpu"]
