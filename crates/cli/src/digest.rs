//! `memobj digest`: digests of the blocks of a file, with which every answer of a server can be compared.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use memobj_url::object_store::Manifest;

use crate::args::CommonArguments;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::{Output, Progress};
use crate::size;

pub(crate) const DIGEST_HELP: &str = "\
Examples:
  memobj digest big.img >big.img.digest
  memobj hash --manifest big.img.digest https://host/big.img    a wrong byte is an error with its range
  memobj digest s3://bucket/key >key.digest                     of what the store has now

The output has the BLAKE3 digest of each block, and their root, which is what `memobj hash` prints. It is written to a
file or a pipe, not to a terminal. With --manifest, a block whose digest is wrong is asked for once
more; if it is wrong again, it fails as \"wrong answer from the pager\".";

/// `memobj digest`.
#[derive(Debug, Args)]
pub(crate) struct DigestArguments {
    /// Bytes of a block, a power of two from 64k to 16M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size::parse)]
    digest_block: u64,
    #[command(flatten)]
    common: CommonArguments,
    /// The file or URL
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes the manifest to standard output.
pub(crate) fn run(arguments: &DigestArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    if io::IsTerminal::is_terminal(&io::stdout()) {
        return Err(Failure::Usage("digest: the output is not text; write it to a file: >FILE".into()));
    }
    let engine = Engine::new(arguments.common.settings())?;
    let view = engine.open(&arguments.file, interrupt)?;
    let name = arguments.file.to_string_lossy();
    let progress = Progress::begin(&name, view.length(), Output::Bytes);
    let reader = Reader { inner: view.reader(), interrupt, progress: &progress };
    let manifest = Manifest::make(reader, arguments.digest_block);
    let manifest = manifest.map_err(|error| match interrupt.check() {
        Err(interrupted) => interrupted,
        Ok(()) => Failure::Message(format!("digest {name}: {error}")),
    })?;
    let mut bytes = Vec::new();
    manifest.write_to(&mut bytes).map_err(|error| Failure::io("write the manifest", &error))?;
    output::put(&bytes)?;
    io::stdout().flush().map_err(|error| Failure::stdout(&error))
}

/// Reads until Ctrl-C.
struct Reader<'a, R> {
    inner: R,
    interrupt: &'a Interrupt,
    progress: &'a Progress,
}

impl<R: io::Read> io::Read for Reader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt.check().map_err(|_| io::Error::other("interrupted"))?;
        let count = self.inner.read(buffer)?;
        self.progress.advance(count as u64);
        Ok(count)
    }
}
