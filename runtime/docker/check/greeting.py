"""The smallest service: whoever connects is told its container's name, by a program of the host's."""

from __future__ import annotations

import shlex
from typing import Final

PORT: Final = 80
GREETING: Final = "this is"
"""What the service says, with its container's name behind it."""
PATIENCE: Final = 4
"""Seconds: a service runs a moment before its addresses lead there."""

# perl's own functions, without a module: so that it needs nothing but its program.
SERVE: Final = f"""
name=$(cat /proc/sys/kernel/hostname)
if command -v perl >/dev/null; then
    exec perl -e 'socket(S,2,1,6)||die $!; bind(S,pack("S n x12",2,{PORT}))||die $!; listen(S,9);
        while(accept(C,S)){{syswrite(C,"{GREETING} $ARGV[0]\\n");close(C)}}' "$name"
elif command -v python3 >/dev/null; then
    exec python3 -c 'import socket,sys
server=socket.create_server(("",{PORT}))
while True:
    one=server.accept()[0]; one.sendall(b"{GREETING} "+sys.argv[1].encode()+b"\\n"); one.close()' "$name"
fi
while :; do echo "{GREETING} $name" | nc -l -p {PORT} || sleep 1; done
"""
"""With whichever of the host's programs can listen."""


def connect(host: str, port: int) -> str:
    """A line for sh that prints what the service says, or why it did not."""
    packed = "pack(q(S n C4 x8),2,$ARGV[1],split(/[.]/,$ARGV[0]))"
    perl = f"alarm 20; socket(S,2,1,6)||die $!; connect(S,{packed})||die $!; print <S>"
    python = (
        "import socket,sys; print(socket.create_connection((sys.argv[1],int(sys.argv[2])),20)"
        ".recv(99).decode())"
    )
    where = f"{shlex.quote(host)} {port}"
    once = (
        f"if command -v perl >/dev/null; then perl -e '{perl}' {where}; "
        f"elif command -v python3 >/dev/null; then python3 -c '{python}' {where}; "
        f"else nc -w 20 {where} </dev/null; fi"
    )
    return (
        f"end=$(($(date +%s) + {PATIENCE})); "
        f'until said=$({{ {once}; }} 2>&1) || [ "$(date +%s)" -ge $end ]; do sleep 1; done; '
        'echo "$said"'
    )
