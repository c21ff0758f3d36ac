FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev cmake make pkg-config \
    libpng-dev libjpeg62-turbo-dev libwebp-dev libjansson-dev libutf8proc-dev zlib1g-dev \
    libcurl4-openssl-dev libssl-dev libmicrohttpd-dev
COPY . /src
RUN cmake -S /src -B /build -DCMAKE_INSTALL_PREFIX=/usr \
    && cmake --build /build -j "$(nproc)" && DESTDIR=/out cmake --install /build --strip \
    && rm -rf /out/usr/include /out/usr/lib/*/cmake /out/usr/lib/*/pkgconfig /out/usr/lib/*/*.a

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl libpng16-16 \
    libjpeg62-turbo libwebp7 libjansson4 libutf8proc2 zlib1g libcurl4 libssl3 libmicrohttpd12 \
    && rm -rf /var/lib/apt/lists/* && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin onestep
COPY --from=build /out/usr/ /usr/
ENV ONESTEP_HOME=/models
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=60s CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["onestep"]
CMD ["serve", "--demo", "--listen", "0.0.0.0:8080", "--insecure"]
