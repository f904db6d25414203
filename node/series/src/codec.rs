//! Encodings of one column, one idea a file.
