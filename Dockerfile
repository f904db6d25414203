# Two stages, in the subset that every builder takes (no mounts, no heredocs): docker build -t tidemark .
# One node:    docker run -d --name tidemark -p 127.0.0.1:7777:7777 -v tidemark:/var/lib/tidemark \
#                tidemark --insecure --advertise=127.0.0.1:7777 --advertise-peer=127.0.0.1:7778
#              docker exec tidemark tidemark cluster init
# Three nodes: docker-compose.yml. Without --insecure a node refuses to listen beyond loopback: there is no TLS yet.
# The first layers change only with Cargo.toml, Cargo.lock or scripts/, so RocksDB's C++ is built once per machine.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make libclang1-14 libclang-common-14-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ENV XDG_CACHE_HOME=/cache
COPY Cargo.toml Cargo.lock ./
COPY scripts/lib.sh scripts/rocksdb.sh scripts/
RUN scripts/rocksdb.sh
COPY . .
# Stripped, the image has 120 MB instead of 227; backtraces lose line numbers and keep function names.
RUN scripts/setup.sh \
 && scripts/run.sh cargo build --release --locked -p tidemark-node -p tidemark-tools \
 && mkdir -p /out/data \
 && for program in tidemarkd tidemark; do \
      strip --strip-debug -o "/out/$program" "/cache/tidemark/target/release/$program" || exit 1; \
    done

FROM debian:bookworm-slim
COPY --from=build /out/tidemarkd /out/tidemark /usr/local/bin/
# A volume takes the owner of the folder it covers.
COPY --from=build --chown=65532:65532 /out/data /var/lib/tidemark
COPY bench/catalogue/device-types.toml /usr/share/tidemark/
USER 65532:65532
VOLUME /var/lib/tidemark
EXPOSE 7777 7778
ENV TIDEMARK_DATA_DIR=/var/lib/tidemark \
    TIDEMARK_LISTEN=0.0.0.0:7777 \
    TIDEMARK_PEER_LISTEN=0.0.0.0:7778
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["tidemarkd", "health", "--endpoint", "127.0.0.1:7777"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidemarkd"]
