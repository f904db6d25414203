//! The Tidemark server.
