# The server, without any model: versions come from the registry, which is mounted read-only.
#
#   docker build -t lifelong --build-arg TORCH_INDEX=URL_OF_TORCHS_CPU_WHEELS .
#   docker run -p 3000:3000 -v $PWD/runs/registry:/registry:ro -v lifelong-state:/state lifelong

FROM python:3.11-slim AS build

# Extra index with torch's CPU wheels, as its installation page names it; without it pip's own index decides, and the
# image may grow by gigabytes of libraries for GPUs.
ARG TORCH_INDEX=""

RUN python -m venv /opt/lifelong
WORKDIR /src

# Dependencies first: this layer is built again only when they change.
COPY pyproject.toml constraints.txt ./
RUN /opt/lifelong/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && PIP_EXTRA_INDEX_URL="$TORCH_INDEX" /opt/lifelong/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt httptools uvloop

COPY README.md LICENSE ./
COPY lifelong ./lifelong
COPY strategies ./strategies
COPY serving ./serving
RUN /opt/lifelong/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim

# Threads are bound before torch is loaded: one per forward pass answers several times as many requests.
ENV PATH=/opt/lifelong/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    MKL_NUM_THREADS=1 \
    BENTOML_DO_NOT_TRACK=true \
    BENTOML_HOME=/state/bentoml

RUN useradd --uid 10001 --create-home lifelong \
    && mkdir /registry /state \
    && chown lifelong /state
COPY --from=build /opt/lifelong /opt/lifelong

VOLUME ["/registry", "/state"]
EXPOSE 3000
WORKDIR /state
USER 10001

# Healthy means that a version is live. Standard library only: the image has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 3000, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

CMD ["lifelong", "serve", "--registry", "/registry", "--state", "/state", "--host", "0.0.0.0", "--port", "3000"]
