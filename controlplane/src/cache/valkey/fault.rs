//! What a client's error means for a caller, in words that hold no credential and no value.

use super::super::CacheError;
use fred::error::{Error, ErrorKind};

/// Longest text of an error, bytes.
const TEXT_MAX: usize = 200;

/// What a server says when it cannot serve now, or not this node, but another or the same one will later.
const NOT_NOW: [&str; 9] =
    ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOAUTH", "WRONGPASS", "NOPERM", "NOREPLICAS"];

/// What became of a call that failed.
pub enum Fault {
    /// The script is not known there: give it whole.
    NoScript,
    /// Nothing is wrong with the connection; the call was refused.
    Refused(CacheError),
    /// The connection is of no use: look for another.
    Useless(CacheError),
    /// There was no connection for it, or no room.
    Unreachable(CacheError),
}

impl Fault {
    /// For the log.
    pub fn into_text(self) -> String {
        match self.into_error() {
            CacheError::Unreachable(why) | CacheError::Refused(why) => why,
        }
    }

    /// For the caller.
    pub fn into_error(self) -> CacheError {
        match self {
            Self::NoScript => CacheError::Refused("it knows no scripts".to_owned()),
            Self::Refused(error) | Self::Useless(error) | Self::Unreachable(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = shown(error.details());
        let says = |word: &&str| error.details().contains(*word);
        if says(&"NOSCRIPT") {
            return Self::NoScript;
        }
        match error.kind() {
            _ if NOT_NOW.iter().any(says) => Self::Useless(CacheError::Unreachable(text)),
            ErrorKind::InvalidArgument | ErrorKind::InvalidCommand | ErrorKind::NotFound | ErrorKind::Parse => {
                Self::Refused(CacheError::Refused(text))
            }
            // What a server says beyond its known words begins with one in capitals; what the client says does not.
            ErrorKind::Unknown if is_servers(&text) => Self::Refused(CacheError::Refused(text)),
            ErrorKind::Auth | ErrorKind::Config => Self::Useless(CacheError::Unreachable(text)),
            ErrorKind::Backpressure | ErrorKind::Canceled => Self::Unreachable(CacheError::Unreachable(text)),
            _ => Self::Unreachable(CacheError::Unreachable(format!("{}: {text}", error.kind().to_str()))),
        }
    }
}

/// Whether a server, not the client, says this.
fn is_servers(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default();
    word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A server may repeat a command's words in its error: they are left out.
fn shown(details: &str) -> String {
    let details = details.split(", with args").next().unwrap_or_default();
    let details = details.split(" script:").next().unwrap_or_default();
    let end = details.floor_char_boundary(TEXT_MAX);
    details[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: ErrorKind, details: &'static str, expected: &str) {
        let found = match Fault::from(Error::new(kind, details)) {
            Fault::NoScript => "no script".to_owned(),
            Fault::Refused(error) => format!("refused: {error}"),
            Fault::Useless(error) => format!("useless: {error}"),
            Fault::Unreachable(error) => format!("unreachable: {error}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn errors_are_told_apart() {
        check(ErrorKind::Unknown, "NOSCRIPT No matching script.", "no script");
        check(ErrorKind::InvalidArgument, "WRONGTYPE it is", "refused: the cache refused: WRONGTYPE it is");
        check(
            ErrorKind::Unknown,
            "ERR value is not an integer",
            "refused: the cache refused: ERR value is not an integer",
        );
        check(ErrorKind::Unknown, "OOM no memory", "refused: the cache refused: OOM no memory");
        check(ErrorKind::Unknown, "LOADING it", "useless: the cache cannot be reached: LOADING it");
        check(ErrorKind::Unknown, "READONLY You", "useless: the cache cannot be reached: READONLY You");
        check(ErrorKind::Auth, "NOAUTH Authentication", "useless: the cache cannot be reached: NOAUTH Authentication");
        let text = "unreachable: the cache cannot be reached: Unknown Error: Client is not initialized.";
        check(ErrorKind::Unknown, "Client is not initialized.", text);
        check(ErrorKind::IO, "Broken pipe", "unreachable: the cache cannot be reached: IO Error: Broken pipe");
        check(ErrorKind::Timeout, "late", "unreachable: the cache cannot be reached: Timeout Error: late");
        check(
            ErrorKind::Unknown,
            "ERR unknown command 'HELLO', with args beginning with: 'AUTH' 'secret'",
            "refused: the cache refused: ERR unknown command 'HELLO'",
        );
    }
}
