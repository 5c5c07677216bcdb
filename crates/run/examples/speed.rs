//! Temporary.
use memobj_run::{Counting, Options, Supervisor};
use std::process::{Command, Stdio};
use std::time::Instant;
fn main() {
    let command: Vec<_> = std::env::args_os().skip(2).collect();
    let reps: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut s = Supervisor::new(Options::default()).unwrap();
    let mut e = Supervisor::new(Options { counting: Counting::Touches, ..Default::default() }).unwrap();
    let mut n = vec![];
    let mut u = vec![];
    let mut x = vec![];
    let _ = Stdio::null();
    for i in 0..reps {
        let t = Instant::now();
        Command::new(&command[0]).args(&command[1..]).status().unwrap();
        n.push(t.elapsed());
        let t = Instant::now();
        s.run(&command, &mut |_| {}).unwrap();
        if i > 0 {
            u.push(t.elapsed());
        }
        let t = Instant::now();
        e.run(&command, &mut |_| {}).unwrap();
        if i > 0 {
            x.push(t.elapsed());
        }
    }
    for v in [&mut n, &mut u, &mut x] {
        v.sort();
    }
    let m = |v: &Vec<std::time::Duration>| v[v.len() / 2].as_secs_f64() * 1e3;
    let h = s.history();
    eprintln!(
        "native {:.2} ms, memobj {:.2} ms ({:.2}), touches {:.2} ms ({:.2}); faults {} maps {}",
        m(&n),
        m(&u),
        m(&u) / m(&n),
        m(&x),
        m(&x) / m(&n),
        h.faults.len(),
        h.files.iter().map(|f| f.mappings).sum::<u64>()
    );
}
