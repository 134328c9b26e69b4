# Built by scripts/build-image, which puts the wheels into build/wheels first: the build itself uses the
# network only where the base does not have what scripts/image-tools lists.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
# Python 3.11, as the wheels are for: of Debian the interpreter and its standard library, no pip, no compiler.
# VARIANT is plain, or tools: also what volumes of the v1 data engine need.
ARG VARIANT=plain
COPY scripts/image-tools /usr/local/libexec/
RUN missing=$(/usr/local/libexec/image-tools missing ${VARIANT}) \
    && if [ -n "$missing" ]; then \
         { apt-get update \
           && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing \
           && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log; } \
         || { echo "the base image lacks" $missing", and apt cannot install that here" >&2; exit 1; }; \
       fi \
    && /usr/local/libexec/image-tools check ${VARIANT}

FROM python AS build
# pip runs out of its own wheel, so the environment never has one.
RUN python3 -m venv --without-pip /opt/instance-manager && rm /opt/instance-manager/bin/[Aa]ctivate*
COPY requirements/runtime.lock /src/
COPY build/wheels/locked /src/locked
RUN export PYTHONPATH="$(echo /src/locked/pip-*.whl)" \
    && /opt/instance-manager/bin/python -m pip install --no-index --find-links /src/locked --no-cache-dir \
         --require-hashes --requirement /src/runtime.lock
# After the locked ones: a change of the code alone leaves the layers above as they are.
COPY build/wheels/own /src/own
RUN export PYTHONPATH="$(echo /src/locked/pip-*.whl)" \
    && /opt/instance-manager/bin/python -m pip install --no-index --no-cache-dir --no-deps /src/own/*.whl \
    && /opt/instance-manager/bin/python -m pip check

FROM python
COPY --from=build /opt/instance-manager /opt/instance-manager
# The names and the place that Longhorn's manifests and scripts know.
RUN for name in instance-manager longhorn-instance-manager start-spdk-tgt instance-manager-v2-prestop; do \
      ln -s /opt/instance-manager/bin/$name /usr/local/bin/ || exit; \
    done \
    && mkdir -p /var/log/instances

# `kubectl logs` is where operators look first.
ENV INSTANCE_MANAGER_DAEMON_ECHO_LOGS=true
# Longhorn's pods name a TLS directory in TLS_DIR and mount an optional secret there. With the secret it is mutual
# TLS, and nothing less; only where there is none, plain text on the network of the pods is what they expect.
ENV INSTANCE_MANAGER_DAEMON_INSECURE=true
# In a pod of a Longhorn manager: the node's devices, and tgtd beside the daemon, where there are such.
ENV INSTANCE_MANAGER_GUARD_PREPARE=longhorn
EXPOSE 8500 8501 8502 8503
# Kubernetes has its own probes and ignores this one.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["instance-manager", "health"]
STOPSIGNAL SIGTERM
# The guard is PID 1: a daemon that dies takes no engine and no replica with it.
ENTRYPOINT ["instance-manager", "guard", "--"]
CMD ["daemon", "--listen", "0.0.0.0:8500", "--logs-dir", "/var/log/instances"]

# Last, as these differ with every build.
ARG VERSION=unknown
ARG GIT_COMMIT=unknown
ARG BUILD_DATE=unknown
ENV INSTANCE_MANAGER_GIT_COMMIT=${GIT_COMMIT} \
    INSTANCE_MANAGER_BUILD_DATE=${BUILD_DATE}
LABEL org.opencontainers.image.title="instance-manager" \
      org.opencontainers.image.description="Starts and supervises Longhorn engine and replica processes on a storage node, over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.created="${BUILD_DATE}"
