# The GPU tests and benchmarks in a container. The host needs a driver and the NVIDIA container toolkit;
# CUDA's libraries come as wheels.
#
#   docker build -t asyncnet-gpu .
#   docker run --rm --gpus all -v asyncnet-cupy:/cache -v "$PWD/report:/report" asyncnet-gpu
#
# Arguments after the image's name go to pytest. The folder mounted on /report must be writable by uid 1000.
ARG BASE_TAG=3.11-slim-bookworm
FROM python:${BASE_TAG}

# cuda12x or cuda13x: the major version of CUDA that the host's driver supports.
ARG CUDA_EXTRA=cuda13x

RUN useradd --create-home --uid 1000 asyncnet \
    && install -d -o asyncnet /cache /report /app
WORKDIR /app

# Metadata first: the layer with CUDA's libraries (about 4 GB) is rebuilt only when it changes.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir asyncnet_gpu kernels && touch asyncnet_gpu/__init__.py \
    && pip install --no-cache-dir ".[${CUDA_EXTRA},gpu-test]" \
    && pip uninstall --yes asyncnet-gpu
COPY requirements requirements
RUN pip install --no-cache-dir --no-deps -r requirements/models.txt
COPY --chown=asyncnet . .
RUN pip install --no-cache-dir --no-deps --editable .

ARG GIT_COMMIT=unknown
ENV ASYNCNET_COMMIT=${GIT_COMMIT} CUPY_CACHE_DIR=/cache/cupy REPORT_DIR=/report PYTHONUNBUFFERED=1
USER asyncnet
VOLUME ["/cache", "/report"]
ENTRYPOINT ["ci/gpu"]
