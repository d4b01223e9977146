"""A website by nginx, with TLS and without, for tests."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

NGINX = "/usr/sbin/nginx"


@contextmanager
def nginx(
    folder: Path, pages: Path, certificate: Path, key: Path, settings: str = "", server: str = ""
) -> Iterator[tuple[int, int]]:
    """The ports with TLS and without of one site."""
    folder.mkdir(exist_ok=True)
    with_tls, plain = free_port(), free_port()
    conf = folder / "nginx.conf"
    conf.write_text(
        f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log notice; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log {folder}/access.log; types {{ text/html html; }} {settings}
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{with_tls} ssl; listen 127.0.0.1:{plain};
    server_name site.example; root {pages}; absolute_redirect off;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
    location /old/ {{ return 301 /news/; }}
    location /private/ {{ return 403; }}
    location /drop/ {{ return 444; }} {server}
  }}
}}
"""
    )
    process = subprocess.Popen([NGINX, "-c", conf, "-e", folder / "error.log"], stderr=subprocess.DEVNULL)
    try:
        wait_for(plain, process)
        yield with_tls, plain
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    """A port that nobody has at the moment."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until somebody listens there."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            continue
    raise AssertionError("nginx did not start; its error.log says why")
