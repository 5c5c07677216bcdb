//! Runs the program that the arguments name, and says how it ended and what it took.

use memobj_run::{Options, Outcome, Supervisor};

fn main() -> Result<(), memobj_run::RunError> {
    let command: Vec<_> = std::env::args_os().skip(1).collect();
    let mut supervisor = Supervisor::new(Options::default())?;
    let outcome = supervisor.run(&command, &mut |_| {})?;
    let history = supervisor.history();
    eprintln!(
        "{outcome:?}; {} files, {} faults, {:?}",
        history.files.len(),
        history.faults.len(),
        history.totals
    );
    if let Outcome::Exited(status) = outcome {
        std::process::exit(status);
    }
    Ok(())
}
