//! Fuzzes `decoders::read_sequence`: two bytes give the number of values, the rest is read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let _ = tidemark_series::decoders::read_sequence(usize::from(input.0) % 4096 + 1, input.1);
});
