# A small image of the server. The build needs no database, because .sqlx describes the queries.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY .sqlx .sqlx
COPY migrations migrations
COPY src src
RUN cargo build --release --locked

FROM debian:bookworm-slim
# Root certificates for a login service or a trace collector behind TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/cmdb-associations /usr/local/bin/cmdb-associations
USER 65532:65532
ENV CMDB_LISTEN=0.0.0.0:8090 CMDB_LOG_FORMAT=json
EXPOSE 8090
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["cmdb-associations", "healthcheck"]
ENTRYPOINT ["cmdb-associations"]
CMD ["serve"]
