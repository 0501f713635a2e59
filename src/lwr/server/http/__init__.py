"""The HTTP edge: one module per dialect, thin adapters over the engine's few calls. The only room of aiohttp."""
