# The control plane and, for docker-compose.yml, its one-shot helpers. Two stages: what builds is not what runs.
# Pin both FROM lines by digest where you build for others: a tag moves, a digest does not.
FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Everything that the lock names, each checked against its hash, as wheels in one directory …
COPY requirements.lock ./
RUN python -m pip wheel --quiet --require-hashes --requirement requirements.lock --wheel-dir /wheels

# … from which, and from nowhere else, the project is built and installed: no test or build tool comes along.
RUN python -m pip install --quiet --no-index --find-links /wheels hatchling editables
COPY LICENSE README.md pyproject.toml ./
COPY controlplane controlplane
COPY roles roles
COPY vault-config vault-config
COPY examples examples
RUN python -m pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/shorthold \
 && python -m pip --python /opt/shorthold/bin/python install --quiet --no-index --find-links /wheels shorthold \
 && /opt/shorthold/bin/shorthold --version


FROM python:3.13-slim

LABEL org.opencontainers.image.title="Shorthold" \
      org.opencontainers.image.description="Just-in-time access on Vault and OpenBao, provably gone afterwards." \
      org.opencontainers.image.licenses="MPL-2.0"

COPY --from=build /opt/shorthold /opt/shorthold
COPY roles /etc/shorthold/roles
COPY vault-config/docker/shorthold.toml /etc/shorthold/shorthold.toml

# A numeric user, so that Kubernetes' runAsNonRoot can see that it is not root. A new volume takes the owner and the
# mode of the directory that it is mounted over, so these are made here.
RUN groupadd --system --gid 10001 shorthold \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin shorthold \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/shorthold /run/shorthold/keys /run/shorthold/operator \
 && install --directory --owner 10001 --group 10001 --mode 0755 /run/shorthold /run/shorthold/database

# Nothing is written but to /var/lib/shorthold: the root file system can be read-only.
ENV PATH=/opt/shorthold/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SHORTHOLD_CONFIG=/etc/shorthold/shorthold.toml
USER 10001:10001
WORKDIR /var/lib/shorthold
EXPOSE 8700

# It asks this container only, needs no secret, no shell and no curl, and heeds no proxy of the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8700, timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]

ENTRYPOINT ["shorthold"]
CMD ["serve"]
