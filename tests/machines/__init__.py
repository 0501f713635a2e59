"""What staging is tested against: Galaxy's side, broken lines, and real programs (nginx, sshd) on loopback ports.

Nothing here imports `lwr`: a machine on the other side knows only the wire.
"""
