//! The pure core: points, blocks, encodings and aggregates.
