//! `memobj digest`: digests of the blocks of a file, with which every answer of a server can be compared.

use std::io::{self, Write};

use memobj_url::object_store::Manifest;

use crate::args::DigestArguments;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::{Output, Progress};

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
