# tiler on a CUDA base: NVDEC, NVENC and TensorRT come with the host's driver and the cuda extra.
#   docker build -t tiler . && mkdir -p -m 777 out && docker run --gpus all -v "$PWD/out:/app/out" tiler run configs/4x.yaml
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,video,utility TILER_CACHE=/home/tiler/.cache/tiler \
    PATH=/opt/venv/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 tiler

WORKDIR /app
COPY . .
RUN python3 -m venv /opt/venv && pip install -c requirements.lock ".[cuda]" \
    && install -d -o tiler -g tiler out \
    && tiler doctor > /app/doctor.txt && cat /app/doctor.txt

USER tiler
# What the installation can do was saved when it was built; healthy means that it still can.
HEALTHCHECK --interval=60s --timeout=20s CMD tiler check configs/4x.yaml > /dev/null || exit 1
ENTRYPOINT ["tiler"]
CMD ["run", "configs/4x.yaml"]
