# syntax=docker/dockerfile:1
# The image of `freshrec`: `docker build -t freshrec .`, then `docker run freshrec --help`.
#
# A smaller image with torch for the CPU: add
#   --build-arg PIP_EXTRA_INDEX_URL=<the index of torch's CPU wheels>

FROM python:3.11-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL}
RUN python -m venv /opt/freshrec
WORKDIR /src
# the dependencies first: they change less often than the code
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir streams online encoders infra \
    && /opt/freshrec/bin/pip install -c constraints.txt '.[multilingual]' \
    && /opt/freshrec/bin/pip uninstall --yes freshrec
COPY streams streams
COPY online online
COPY encoders encoders
COPY infra infra
RUN /opt/freshrec/bin/pip install --no-deps -c constraints.txt .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/freshrec /opt/freshrec
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/freshrec --create-home freshrec \
    && install -d -o 10001 -g 10001 /var/lib/freshrec/checkpoints
# numba keeps machine code in NUMBA_CACHE_DIR: the installed package is not ours to write
ENV PATH=/opt/freshrec/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/lib/freshrec/compiled \
    FRESHREC_STATE=/var/lib/freshrec/state
USER 10001:10001
WORKDIR /var/lib/freshrec
# compiled now, so that workers start at once (another processor compiles again, for a minute)
RUN ["python", "-c", "from online.core import Recommender; Recommender().warm_up()"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8123/health', timeout=4)"]
ENTRYPOINT ["freshrec"]
CMD ["worker"]
