//! Any line is split; what is split again from its words stays the same; ranges expand within their limit.
#![no_main]

use command::{range, words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &str| {
    for word in words::split(line) {
        assert!(line.is_char_boundary(word.start));
    }
    if let Ok(words) = words::split_whole(line) {
        assert!(words.iter().all(|w| w.closed));
    }
    if let Ok(numbers) = range::expand(line) {
        assert!(!numbers.is_empty());
    }
});
