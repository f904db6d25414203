//! Client of Tidemark.
