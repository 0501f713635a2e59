"""The commands of `lwr`, a module each with `run(args) -> exit code`; imported by `lwr.cli` only when asked for."""
