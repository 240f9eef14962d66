# The image of nanonets-proxy: Python, and the program in a virtual environment without pip or a compiler.
#
#   docker build -t nanonets-proxy .
#
# Some key stores (docs/keys.md), page counting (docs/gate.md) and a fleet (docs/fleet.md) need the extras of the package.
# This image has all:
#
#   docker build -t nanonets-proxy:extras --target extras .
#
# Behind a firewall that inspects TLS, give its certificates to the build; the image does not keep them:
#
#   docker build -t nanonets-proxy --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt .

# A release pins the base by its digest, so that a rebuild has the same base:
#
#   docker build -t nanonets-proxy --build-arg BASE=python:3.13-slim@sha256:... .

ARG BASE=python:3.13-slim
FROM ${BASE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# Every package is pinned by its hash, also those that build the wheel. They come before the source, so that a change
# of the source does not install them again.
COPY requirements/ requirements/
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && python -m venv --without-pip /opt/nanonets-proxy \
 && python -m pip --python /opt/nanonets-proxy/bin/python install \
      --no-compile --require-hashes --only-binary :all: -r requirements/run.txt \
 && python -m venv --without-pip /opt/build \
 && python -m pip --python /opt/build/bin/python install \
      --no-compile --require-hashes --only-binary :all: -r requirements/build.txt

COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
# A read-only container cannot store bytecode, so the build compiles it. Python must not compare it with time stamps,
# because copying a layer may change them.
RUN /opt/build/bin/python -m hatchling build -t wheel -d dist \
 && python -m pip --python /opt/nanonets-proxy/bin/python install --no-compile --no-deps --no-index dist/*.whl \
 && python -m compileall -qf --invalidation-mode unchecked-hash /opt/nanonets-proxy


FROM build AS build-extras
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && for lock in requirements/extra-*.txt; do \
      python -m pip --python /opt/nanonets-proxy/bin/python install \
        --no-compile --require-hashes --only-binary :all: -r "$lock" || exit 1; \
    done \
 && python -m compileall -qf --invalidation-mode unchecked-hash /opt/nanonets-proxy


# All that both images share, except for the program.
FROM ${BASE} AS common
# The labels below use these. podman would take their layer from the cache also if a build argument has changed, so the
# arguments come before a RUN: its layer is another one with other arguments.
ARG VERSION=unreleased
ARG REVISION=unknown
# The only directory that the image's user may write. A volume here keeps the usage ledger and the learned rate limits;
# a new volume takes its owner from the image.
RUN ["python", "-c", "import os; os.mkdir('/var/lib/nanonets-proxy', 0o750); os.chown('/var/lib/nanonets-proxy', 10001, 10001)"]

# Other containers, health probes and Prometheus call from other addresses, so both listeners are on all interfaces.
# NANONETS_PROXY_ALLOW_FROM admits callers from private networks only.
ENV PATH="/opt/nanonets-proxy/bin:${PATH}" \
    NANONETS_PROXY_LISTEN=":8080" \
    NANONETS_PROXY_ADMIN_LISTEN=":8081" \
    NANONETS_PROXY_ALLOW_FROM="10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"

# The program reads a nanonets-proxy.toml that is mounted here.
WORKDIR /etc/nanonets-proxy
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["nanonets-proxy", "healthcheck"]
# As process 1, the program would never get a SIGTERM that arrives before Python has a handler for it: the kernel drops
# it. A blocked signal waits, and the program unblocks it.
ENTRYPOINT ["env", "--block-signal=TERM,INT", "nanonets-proxy"]
CMD ["serve"]

LABEL org.opencontainers.image.title="nanonets-proxy" \
      org.opencontainers.image.description="A local authenticating reverse proxy for the Nanonets document API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"


FROM common AS extras
COPY --from=build-extras /opt/nanonets-proxy /opt/nanonets-proxy
RUN ["python", "-c", "import nanonets_proxy.cli.main, nanonets_proxy.cli.commands, nanonets_proxy.cli.run, nanonets_proxy.cli.serving, nanonets_proxy.process.settings_reader, nanonets_proxy.process.serve"]
USER 10001:10001


FROM common
COPY --from=build /opt/nanonets-proxy /opt/nanonets-proxy
# The slim base has no bytecode for the standard library. Importing the program stores that of the modules in use.
RUN ["python", "-c", "import nanonets_proxy.cli.main, nanonets_proxy.cli.commands, nanonets_proxy.cli.run, nanonets_proxy.cli.serving, nanonets_proxy.process.settings_reader, nanonets_proxy.process.serve"]
# Kubernetes can check `runAsNonRoot` only for a number. The user owns no file of the image but /var/lib/nanonets-proxy.
USER 10001:10001
