//! What one datagram asks and what its reply says, in either form.
//!
//! A question is written into one buffer that is used again, with an id that tells socket's requests apart and differs
//! from level to level, so that a reply to an earlier level is not taken for one to this.

use super::count::Verdict;
use crate::frame::UdpKey;
use crate::framing::is_refusal;
use crate::job::{DatagramFormat, Job};
use crate::price::{PriceReader, Wrong, read_frame};
use shared::code::Code;
use shared::wire::{FRAME_SIZE, ReplyFrame};
use std::iter;

/// Ids begin here, so that all have 15 digits: whole in every JSON reader, and of one length.
const ID_FIRST: u64 = 100_000_000_000_000;
/// Ids of one level: more than one socket can use up in it.
const IDS: u64 = 1_000_000_000;
/// Levels until ids come again. With it all ids stay below 16 digits.
const ID_ROUNDS: u64 = 800_000;
/// Digits of an id.
const ID_DIGITS: usize = 15;

/// See the top of the file.
pub(crate) struct Question<'a> {
    job: &'a Job,
    key: UdpKey,
    id_first: u64,
    /// By asset: the JSON object, its id last but for the brace and the padding.
    objects: Vec<Vec<u8>>,
    /// Where the id's digits are in an object, by asset.
    id_at: Vec<usize>,
    frame: [u8; FRAME_SIZE],
    reader: PriceReader,
}

impl<'a> Question<'a> {
    /// `even`: all questions are of one length, as trains need. `seed` differs from level to level.
    pub(crate) fn new(job: &'a Job, even: bool, seed: u64) -> Self {
        let credentials = &job.credentials;
        let id_first = ID_FIRST + (seed >> 20) % ID_ROUNDS * IDS;
        let longest = job.assets.iter().map(|asset| asset.as_str().len()).max().unwrap_or(0);
        let mut id_at = Vec::new();
        let object = |asset: &shared::asset::Symbol| {
            let begin = format!("{{\"key\":\"{}\",\"asset\":\"{asset}\",\"id\":", credentials.key);
            id_at.push(begin.len());
            let padding = if even { longest - asset.as_str().len() } else { 0 };
            let end: String = iter::repeat_n(' ', padding).chain(['}']).collect();
            format!("{begin}{id_first}{end}").into_bytes()
        };
        Self {
            objects: job.assets.iter().map(object).collect(),
            id_at,
            job,
            key: UdpKey { id: credentials.udp_key_id, secret: credentials.udp_secret },
            id_first,
            frame: [0; FRAME_SIZE],
            reader: PriceReader::new(&job.assets, credentials),
        }
    }

    /// Bytes of every question, where they are even.
    pub(crate) fn length(&self) -> u16 {
        let length = match self.job.format {
            DatagramFormat::Binary => FRAME_SIZE,
            DatagramFormat::Json => self.objects.first().map_or(0, Vec::len),
        };
        u16::try_from(length).unwrap_or(0)
    }

    /// The datagram that asks for the asset at `asked` as request number `number` of its socket.
    #[inline]
    pub(crate) fn ask(&mut self, asked: usize, number: u64, wall_ms: u64) -> &[u8] {
        let id = self.id_first + number;
        match self.job.format {
            DatagramFormat::Binary => {
                self.frame = self.key.request(*self.job.assets[asked].padded(), id, wall_ms);
                &self.frame
            }
            DatagramFormat::Json => {
                let object = &mut self.objects[asked];
                let digits = &mut object[self.id_at[asked]..][..ID_DIGITS];
                let mut rest = id;
                for digit in digits.iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                object
            }
        }
    }

    /// Number of the request that `datagram` answers, if it answers one.
    #[inline]
    pub(crate) fn answered(&mut self, datagram: &[u8]) -> Option<u64> {
        let id = match self.job.format {
            DatagramFormat::Binary => u64::from_le_bytes(datagram.get(8..16)?.try_into().ok()?),
            DatagramFormat::Json => self.reader.id(datagram)?,
        };
        id.checked_sub(self.id_first)
    }

    /// What a reply is worth that answers a question for the asset at `asked`.
    #[inline]
    pub(crate) fn judge(&mut self, datagram: &[u8], asked: usize, before: u64, wall_ms: u64) -> Verdict {
        match self.job.format {
            DatagramFormat::Binary => self.judge_frame(datagram, before, wall_ms),
            DatagramFormat::Json => self.judge_object(datagram, asked, before),
        }
    }

    fn judge_frame(&self, datagram: &[u8], before: u64, wall_ms: u64) -> Verdict {
        let Ok(frame) = bytemuck::try_pod_read_unaligned::<ReplyFrame>(datagram) else {
            return Verdict::Wrong(Wrong::Without("the 64 bytes of a frame"));
        };
        if !self.key.signed(&frame) {
            return Verdict::Wrong(Wrong::Signature);
        }
        match frame.status {
            0 => match read_frame(&frame, wall_ms) {
                Ok(price) => Verdict::Price { price, before },
                Err(wrong) => Verdict::Wrong(wrong),
            },
            number => {
                let status = Code::from_number(number).map_or(0, Code::status);
                let why = Wrong::Status(status, format!("code {number} in a frame"));
                if is_refusal(status) { Verdict::Refused(why) } else { Verdict::Wrong(why) }
            }
        }
    }

    fn judge_object(&mut self, datagram: &[u8], asked: usize, before: u64) -> Verdict {
        match self.reader.read(datagram, asked) {
            Ok(price) => Verdict::Price { price, before },
            Err(wrong) => match self.reader.status(datagram) {
                Some(status) => {
                    let why = Wrong::Status(status, self.reader.excerpt(datagram));
                    if is_refusal(status) { Verdict::Refused(why) } else { Verdict::Wrong(why) }
                }
                None => Verdict::Wrong(wrong),
            },
        }
    }
}
