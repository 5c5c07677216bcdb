//! Clients that borrow frames: verbs about loans.
//!
//! A borrower maps the file of frames by itself, and has its own userfaultfds. It asks the server for pages that are
//! missing. So the server trusts it with the frames, and lends to few.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::input::Input;
use super::lend::{Lend, Loan, Sharing};
use super::long;
use super::refusal::{Kind, Refusal};
use super::requests::{Arguments, Asked, Taken, check_readable, refuse_again};
use super::session::Session;
use super::words::Fields;

/// Files that one client borrows at once.
const MOST_LOANS: usize = 4096;

/// A descriptor that goes with an answer: that of the frames of a loan, which stays while the answer waits.
#[derive(Debug)]
pub(super) struct Handed(Arc<Loan>);

impl AsFd for Handed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.lent.file()
    }
}

/// What a greeting says of lending to this client.
pub(super) fn greeting(session: &Session) -> &'static str {
    match session.server.options.lend {
        Lend::Nobody => "",
        lend if lend.to(session.peer.user) => " lends=frames",
        _ => " lends=not-to-you",
    }
}

fn check_lent_to(session: &Session) -> Result<(), Refusal> {
    match session.server.options.lend {
        Lend::Nobody => Err(Refusal::new(Kind::Denied, "the server lends no frames")),
        lend if lend.to(session.peer.user) => Ok(()),
        _ => {
            let why = "the server lends frames to its own user and to root only: who borrows them could make others read \
                       wrong bytes";
            Err(Refusal::new(Kind::Denied, why))
        }
    }
}

/// `borrow private|shared`, with a descriptor of a regular file that is open for reading.
pub(super) fn borrow(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
    input: &mut Input,
) -> Result<Taken, Refusal> {
    refuse_again(asked)?;
    let descriptor = input.take_descriptor()?;
    let sharing = match arguments.word("private or shared")? {
        "private" => Sharing::Private,
        "shared" => Sharing::Shared,
        _ => return Err(Refusal::syntax("frames are borrowed private or shared")),
    };
    arguments.end()?;
    check_lent_to(session)?;
    check_readable(&descriptor)?;
    if session.state().loans.len() >= MOST_LOANS {
        return Err(Refusal::quota("loans", MOST_LOANS as u64));
    }
    // A borrower goes on without the server: it is told of its death by the end of the connection.
    session.end_keeping().map_err(|error| Refusal::system("let a client go from its keeper", &error))?;
    let loan = Arc::new(session.server.lender.lend(&descriptor, sharing)?);
    let length = loan.lent.len();
    let mut state = session.state();
    let number = state.new_object();
    state.loans.insert(number, Arc::clone(&loan));
    drop(state);
    let fields = Fields::new().with("object", number).with("length", length);
    session.output.answer_with(&format!("{} ok{fields}\n", asked.tag), asked.ticket, Handed(loan));
    Ok(Taken::Begun)
}

fn loan(session: &Session, arguments: &mut Arguments<'_>) -> Result<Arc<Loan>, Refusal> {
    let number = arguments.number("the loan")?;
    session.state().loans.get(&number).cloned().ok_or_else(|| Refusal::not_found("loan"))
}

/// `resolve OBJECT OFFSET START LENGTH`: obtains the page at OFFSET, and on the way absent pages of the range.
pub(super) fn resolve(
    session: &Arc<Session>,
    asked: Asked<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<Taken, Refusal> {
    let loan = loan(session, arguments)?;
    let (offset, start, length) =
        (arguments.number("the offset")?, arguments.number("the start")?, arguments.number("the length")?);
    arguments.end()?;
    let most = loan.lent.len();
    let end = start.checked_add(length).filter(|_| offset < most);
    let Some(end) = end else {
        let refusal = Refusal::new(Kind::Range, format!("{offset}: the object has {most} bytes"));
        return Err(refusal.with(|fields| fields.with("length", most)));
    };
    if loan.lent.is_resident(offset) {
        return Ok(Taken::Done(Fields::new()));
    }
    long::begin(session, asked, move |session| {
        loan.lent.resolve_while(offset, start..end, &|| !session.is_over())?;
        Ok(Fields::new())
    })
}

/// `prefetch-lent OBJECT OFFSET LENGTH`.
pub(super) fn prefetch(session: &Session, arguments: &mut Arguments<'_>) -> Result<Taken, Refusal> {
    let loan = loan(session, arguments)?;
    let (start, length) = (arguments.number("the offset")?, arguments.number("the length")?);
    arguments.end()?;
    let range = start..start.saturating_add(length);
    loan.lent.prefetch(std::slice::from_ref(&range));
    Ok(Taken::Done(Fields::new()))
}

/// `give-back OBJECT [changes]`: with the word, the client is about to let the file change.
pub(super) fn give_back(session: &Session, arguments: &mut Arguments<'_>) -> Result<Taken, Refusal> {
    let number = arguments.number("the loan")?;
    let changes = match arguments.next_word() {
        None => false,
        Some("changes") => true,
        Some(_) => return Err(Refusal::syntax("behind the loan comes nothing, or changes")),
    };
    arguments.end()?;
    let removed = session.state().loans.remove(&number);
    let loan = removed.ok_or_else(|| Refusal::not_found("loan"))?;
    if changes {
        session.server.lender.forget(&loan);
    }
    drop(loan);
    Ok(Taken::Done(Fields::new()))
}
