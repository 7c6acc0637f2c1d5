//! The corpus of the fuzz targets, replayed without a fuzzer.

use std::fs;
use std::path::Path;

// For the fuzzer it is a library, whose items are reached from outside.
#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod fuzz;

#[test]
fn every_file_of_the_corpus_passes() {
    for (name, target) in fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let files =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 5, "{name} has next to no corpus");
        for file in files {
            // The name of the file is what a failure has to tell.
            eprintln!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn bytes_that_mean_nothing_pass() {
    for (_, target) in fuzz::TARGETS {
        for data in [&[][..], &[0; 300], &[255; 300], b"\r\n\r\n"] {
            target(data);
        }
        (0..=255).for_each(|byte: u8| target(&[byte, byte.wrapping_mul(7), 3]));
    }
}
