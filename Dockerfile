# The GPU tests and benchmarks in a container. The host needs a driver and the NVIDIA container
# toolkit; CUDA's libraries come as wheels.
#
#   docker build -t asyncnet-gpu .
#   docker run --rm --gpus all -v asyncnet-cupy:/cache -v "$PWD/report:/report" asyncnet-gpu
#
# Arguments after the image's name go to pytest. The folder mounted on /report must be writable by
# uid 1000. Other commands: docker run ... --entrypoint asyncnet asyncnet-gpu devices
ARG BASE_TAG=3.11-slim-bookworm
FROM python:${BASE_TAG}

# For the version of CUDA that the host's driver supports (the first line of nvidia-smi). With 12:
#   docker build --build-arg CUDA_EXTRAS=cuda12x ...; docker run -e SANITIZER=no ...
ARG CUDA_EXTRAS=cuda13x,sanitizer13

RUN useradd --create-home --uid 1000 asyncnet \
    && install -d -o asyncnet /cache /report /app
WORKDIR /app

# Dependencies first: the layer with CUDA's libraries (about 4 GB) is rebuilt only when they change.
COPY pyproject.toml ./
COPY ci/requirements ci/
RUN ci/requirements "${CUDA_EXTRAS},gpu-test" > requirements.txt \
    && pip install --no-cache-dir -r requirements.txt
COPY requirements requirements
RUN pip install --no-cache-dir --no-deps -r requirements/models.txt -r requirements/cudnn.txt
# What the CPU backend launches with; the compiler is gone at the end of the layer.
COPY kernels/host kernels/host
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && python kernels/host/build.py \
    && apt-get purge --yes --auto-remove gcc libc6-dev binutils && rm -rf /var/lib/apt/lists/*
COPY --chown=asyncnet . .
RUN pip install --no-cache-dir --no-deps --editable .

ARG GIT_COMMIT=unknown
ENV ASYNCNET_COMMIT=${GIT_COMMIT} CUPY_CACHE_DIR=/cache/cupy REPORT_DIR=/report \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility PYTHONUNBUFFERED=1
USER 1000
VOLUME ["/cache", "/report"]
ENTRYPOINT ["ci/gpu"]
