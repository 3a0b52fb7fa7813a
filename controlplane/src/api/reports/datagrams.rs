//! Reports over UDP: totals of one's own usage in one datagram, on a port of its own.
//!
//! What is answered at all, and how long an answer may be, `reports::datagram` knows; here is who asks, under the same
//! allowance as everywhere, and the wait for the database, which so many datagrams may share and no more.

use crate::api::account::{Answered, count};
use crate::api::{ApiState, problem::Problem};
use crate::keys::{admit, identify};
use crate::reports::datagram::{Request, Totals, read};
use crate::reports::desk::{ReportDesk, Work};
use crate::reports::log::{Asked, Note};
use crate::reports::query::{Asking, LIMIT_MAX, Report, ReportQuery, Scope};
use crate::reports::source::page;
use crate::store::{Store, Stored};
use shared::code::Code;
use shared::key::Permissions;
use shared::limits::DATAGRAM_IN_MAX;
use shared::moment::Moment;
use shared::tick::Tier;
use shared::usage::{Endpoint, PROTOCOL_UDP};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tuning::clock;

/// Opens the port. An unspecified IPv6 address listens on both families.
///
/// # Errors
/// One line with the address, the reason and what to do.
pub fn bind(address: IpAddr, port: u16) -> Result<UdpSocket, String> {
    let address = SocketAddr::new(address, port);
    open(address).map_err(|error| {
        format!(
            "cannot listen on UDP {address}: {error}; free the port, or set UDP_PORT_LRS to another (0: any free port)"
        )
    })
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers datagrams for as long as it is polled.
pub async fn serve(socket: UdpSocket, state: Arc<ApiState>, desk: Arc<ReportDesk>) {
    let socket = Arc::new(socket);
    let own_port = socket.local_addr().map_or(0, |address| address.port());
    // One byte more than any good request has, so that a longer one is seen to be.
    let mut space = [0; DATAGRAM_IN_MAX + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut space).await {
            Ok(received) => received,
            Err(error) => {
                // Mostly that somebody's port was closed, which the kernel tells here. Never a reason to spin.
                tracing::debug!(%error, "a report datagram could not be received");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        if let Some(request) = read(&space[..length], from, own_port) {
            take(Asker { socket: Arc::clone(&socket), from, request, now: clock::now() }, &state, &desk);
        }
    }
}

/// Who waits for an answer.
struct Asker {
    socket: Arc<UdpSocket>,
    from: SocketAddr,
    request: Request,
    now: Moment,
}

/// Why there are no totals: HTTP status and the code's name, and what is counted.
struct Refused {
    status: u16,
    name: &'static str,
    code: Code,
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self { status: code.status(), name: code.name(), code }
    }
}

impl Asker {
    /// Sends a reply, if there is one, and counts it.
    fn reply(&self, state: &ApiState, key: u32, outcome: Result<Vec<u8>, Refused>) -> Option<u16> {
        let (reply, status, code) = match outcome {
            Ok(reply) => (reply, 200, None),
            Err(Refused { status, name, code }) => (self.request.refusal(status, name)?, status, Some(code)),
        };
        // A full buffer loses it, as any datagram may be lost.
        let _ = self.socket.try_send_to(&reply, self.from);
        let endpoint = Endpoint::Report;
        let (protocol, tier) = (PROTOCOL_UDP, Tier::Local);
        count(state, Answered { key, symbol: None, status, code, protocol, endpoint, tier }, self.now);
        Some(status)
    }
}

/// Answers at once where the database is not needed, else later.
fn take(asker: Asker, state: &Arc<ApiState>, desk: &Arc<ReportDesk>) {
    let keys = state.keys.current();
    let Some(record) = keys.find_text(asker.request.key.as_bytes()) else { return };
    let key = record.id.0;
    let wanted = match identify(&keys, Ok(asker.request.key.as_bytes()), Permissions::REPORTS, asker.now) {
        Err(Code::KeyInvalid) => return,
        Err(code) => Err(code),
        Ok(record) => admit(&keys, record, asker.now).and_then(|_| wanted(&asker, key, desk)),
    };
    let outcome = wanted.and_then(|query| Ok((query, desk.place(Work::Datagram, key).ok_or(Code::Overloaded)?)));
    let (query, place) = match outcome {
        Ok(good) => good,
        Err(code) => {
            asker.reply(state, key, Err(code.into()));
            return;
        }
    };
    let asked = Asked {
        time_ms: asker.now.wall_ms,
        key,
        report: query.report.name(),
        protocol: "udp",
        node: &state.facts.node,
    };
    let mut note = Note::begin(&desk.trail, asked);
    note.about(&query, "json");
    let (state, desk_of_turn) = (Arc::clone(state), Arc::clone(desk));
    desk.spawn(async move {
        let read = match desk_of_turn.turn(Work::Datagram).await {
            Some(_turn) => totals(&*state.store, &query).await.map_err(Problem::from),
            None => Err(Code::Overloaded.into()),
        };
        let outcome = match read {
            Ok(totals) => {
                let reply = asker.request.reply(query.report.name(), &totals);
                reply.ok_or_else(|| Code::ReplyTooLong.into())
            }
            Err(problem) => Err(Refused { status: problem.status(), name: problem.name(), code: Code::Overloaded }),
        };
        let bytes = outcome.as_ref().map_or(0, Vec::len) as u64;
        if let Some(status) = asker.reply(&state, key, outcome) {
            note.answered(status);
            note.sent(u64::from(bytes > 0), bytes);
            note.complete();
        }
        drop(place);
    });
}

/// The totals that a datagram asks for, as a query.
fn wanted(asker: &Asker, key: u32, desk: &ReportDesk) -> Result<ReportQuery, Code> {
    if asker.request.report.as_deref() != Some(Report::Usage.name()) {
        return Err(Code::ParameterInvalid);
    }
    let mut pairs = asker.request.pairs.clone().ok_or(Code::ParameterInvalid)?;
    pairs.push(("group_by".to_owned(), "protocol,status".to_owned()));
    let now_ms = asker.now.wall_ms;
    let asking = Asking { scope: Scope::Own(key), now_ms, retention_days: desk.retention_days() };
    let query = ReportQuery::parse(Report::Usage, &pairs, &asking);
    query.map_err(|faults| faults.first().map_or(Code::ParameterInvalid, |fault| fault.code))
}

/// Reads them. Protocols are two and statuses some twenty: one page has them all.
async fn totals(store: &dyn Store, query: &ReportQuery) -> Stored<Totals> {
    let lines = page(store, query, LIMIT_MAX).await?.lines;
    let mut totals = Totals { from_ms: query.filter.from_ms, to_ms: query.filter.to_ms, ..Totals::default() };
    for line in lines {
        totals.requests = totals.requests.saturating_add(line.requests);
        *totals.by_protocol.entry(line.protocol.to_string()).or_default() += line.requests;
        *totals.by_status.entry(line.status).or_default() += line.requests;
    }
    Ok(totals)
}
