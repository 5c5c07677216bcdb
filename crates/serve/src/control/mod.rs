//! The control connection: see `docs/serve-protocol.md`.
