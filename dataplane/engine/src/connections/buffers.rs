//! Memory that a connection holds only while it needs it: unconsumed input and replies on their way out.
//!
//! An idle connection holds none. Buffers come from a pool and go back to it; the pool and what is out of it are bounded.

use crate::limits::{
    CONNECTIONS_MAX, INPUT_BURSTS_BYTES, INPUT_FIRST_BYTES, INPUT_MAX_BYTES, INPUT_POOLED_BYTES, INPUT_PRESSURE_BYTES,
    INPUTS_POOLED_MAX, OUTPUTS_MAX, OUTPUTS_POOLED_MAX,
};
use dataplane_core::reply::ReplyBuffer;
use dataplane_core::shard::StreamToken;
use std::collections::VecDeque;

/// A bound is reached: the connection that asked must be closed, for the sake of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// Input that is not dealt with: bytes, of which the first `start` are consumed.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    /// What is not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// How much is not consumed.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `more`.
    ///
    /// # Errors
    /// A bound on one connection's or all connections' input is reached; nothing was appended.
    pub(crate) fn append(&mut self, more: &[u8], buffers: &mut Buffers) -> Result<(), Exhausted> {
        if more.is_empty() {
            return Ok(());
        }
        if self.len() + more.len() > INPUT_MAX_BYTES {
            return Err(Exhausted);
        }
        if self.bytes.capacity() == 0 {
            self.bytes = buffers.take_input();
        }
        if self.bytes.len() + more.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
            buffers.make_room(&mut self.bytes, more.len())?;
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Counts the first `count` bytes as dealt with.
    pub(crate) fn consume(&mut self, count: usize, buffers: &mut Buffers) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.clear(buffers);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, buffers: &mut Buffers) {
        self.start = 0;
        buffers.put_input(std::mem::take(&mut self.bytes));
    }
}

/// The pool of one shard.
pub(crate) struct Buffers {
    outputs: Vec<ReplyBuffer>,
    /// Reply buffers that are out.
    outputs_out: usize,
    /// Connections that wait for a reply buffer to come back, the longest waiting first.
    in_line: VecDeque<StreamToken>,
    inputs: Vec<Vec<u8>>,
    /// Capacity of the input buffers that are out and larger than `INPUT_POOLED_BYTES`, bytes.
    bursts_out: usize,
}

impl Buffers {
    /// No buffer yet, and room to name all that will ever be kept: 150 KiB, of which little is touched.
    pub(crate) fn new() -> Self {
        Self {
            outputs: Vec::with_capacity(OUTPUTS_POOLED_MAX),
            outputs_out: 0,
            in_line: VecDeque::with_capacity(CONNECTIONS_MAX),
            inputs: Vec::with_capacity(INPUTS_POOLED_MAX),
            bursts_out: 0,
        }
    }

    /// An empty reply buffer.
    ///
    /// # Errors
    /// `OUTPUTS_MAX` are out.
    pub(crate) fn take_output(&mut self) -> Result<ReplyBuffer, Exhausted> {
        if self.outputs_out >= OUTPUTS_MAX {
            return Err(Exhausted);
        }
        self.outputs_out += 1;
        Ok(self.outputs.pop().unwrap_or_default())
    }

    /// Whether there is a reply buffer to be taken.
    pub(crate) fn has_output(&self) -> bool {
        self.outputs_out < OUTPUTS_MAX
    }

    /// Puts a connection in line for a reply buffer.
    ///
    /// # Errors
    /// As many are in line as there can be connections: some of those are gone, and until they are called no more come.
    pub(super) fn stand_in_line(&mut self, token: StreamToken) -> Result<(), Exhausted> {
        if self.in_line.len() >= CONNECTIONS_MAX {
            return Err(Exhausted);
        }
        self.in_line.push_back(token);
        Ok(())
    }

    /// The first in line, if there is a reply buffer for it. It may be gone by now.
    #[inline]
    pub(crate) fn call_next(&mut self) -> Option<StreamToken> {
        if self.in_line.is_empty() || !self.has_output() { None } else { self.in_line.pop_front() }
    }

    /// Whether large inputs take so much that no more should be taken in than can be served; `was`: as of late. It ends
    /// at half of where it begins, so that it does not come and go with every buffer.
    #[inline]
    pub(crate) fn is_pressed(&self, was: bool) -> bool {
        self.bursts_out > if was { INPUT_PRESSURE_BYTES / 2 } else { INPUT_PRESSURE_BYTES }
    }

    /// Takes a reply buffer back.
    pub(crate) fn put_output(&mut self, mut output: ReplyBuffer) {
        self.outputs_out -= 1;
        if self.outputs.len() < OUTPUTS_POOLED_MAX {
            output.clear();
            self.outputs.push(output);
        }
    }

    fn take_input(&mut self) -> Vec<u8> {
        self.inputs.pop().unwrap_or_default()
    }

    fn put_input(&mut self, mut input: Vec<u8>) {
        let burst = burst_of(input.capacity());
        self.bursts_out -= burst;
        if input.capacity() > 0 && burst == 0 && self.inputs.len() < INPUTS_POOLED_MAX {
            input.clear();
            self.inputs.push(input);
        }
    }

    /// Makes `input`, which is out, hold `more` bytes more.
    fn make_room(&mut self, input: &mut Vec<u8>, more: usize) -> Result<(), Exhausted> {
        let before = input.capacity();
        let wanted = (input.len() + more).next_power_of_two().max(INPUT_FIRST_BYTES);
        if wanted <= before {
            return Ok(());
        }
        let others = self.bursts_out - burst_of(before);
        if others + burst_of(wanted) > INPUT_BURSTS_BYTES {
            return Err(Exhausted);
        }
        input.reserve_exact(wanted - input.len());
        self.bursts_out = others + burst_of(input.capacity());
        Ok(())
    }
}

/// What a buffer of this capacity counts as burst.
const fn burst_of(capacity: usize) -> usize {
    if capacity > INPUT_POOLED_BYTES { capacity } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_comes_out_in_order_whatever_was_consumed_between() {
        let mut buffers = Buffers::new();
        let mut input = Input::default();
        let (mut written, mut read) = ((0..=u8::MAX).cycle(), (0..=u8::MAX).cycle());
        for round in 0..2_000_usize {
            let more: Vec<u8> = written.by_ref().take(round % 97).collect();
            input.append(&more, &mut buffers).expect("room");
            let taken = (round * 31 % 89).min(input.len());
            assert!(input.bytes()[..taken].iter().copied().eq(read.by_ref().take(taken)));
            input.consume(taken, &mut buffers);
        }
        input.clear(&mut buffers);
        assert_eq!(buffers.bursts_out, 0);
        assert_eq!(buffers.inputs.len(), 1, "the buffer went back to the pool");
    }

    #[test]
    fn one_connection_s_input_is_bounded() {
        let mut buffers = Buffers::new();
        let mut input = Input::default();
        input.append(&vec![1; INPUT_MAX_BYTES], &mut buffers).expect("the bound itself");
        assert_eq!(input.append(&[1], &mut buffers), Err(Exhausted));
        assert_eq!(input.len(), INPUT_MAX_BYTES);
        input.consume(INPUT_MAX_BYTES, &mut buffers);
        assert!(buffers.inputs.is_empty(), "large ones are not kept");
        assert_eq!(buffers.bursts_out, 0);
    }

    #[test]
    fn all_bursts_together_are_bounded_and_leave_room_for_heads() {
        let mut buffers = Buffers::new();
        let mut inputs: Vec<Input> = Vec::new();
        let refused = loop {
            let mut input = Input::default();
            match input.append(&vec![1; INPUT_MAX_BYTES], &mut buffers) {
                Ok(()) => inputs.push(input),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Exhausted);
        assert_eq!(inputs.len(), INPUT_BURSTS_BYTES / INPUT_MAX_BYTES);
        let mut head = Input::default();
        head.append(&[1; INPUT_POOLED_BYTES], &mut buffers).expect("a request head always finds room");
        inputs.push(head);
        inputs.iter_mut().for_each(|input| input.clear(&mut buffers));
        assert_eq!(buffers.bursts_out, 0);
    }

    #[test]
    fn reply_buffers_are_bounded_and_come_back_empty() {
        let mut buffers = Buffers::new();
        let mut out: Vec<ReplyBuffer> = (0..OUTPUTS_MAX).map(|_| buffers.take_output().expect("room")).collect();
        assert!(buffers.take_output().is_err());
        for token in [StreamToken(1), StreamToken(2)] {
            buffers.stand_in_line(token).expect("room in the line");
        }
        assert_eq!(buffers.call_next(), None, "nothing is back yet");
        assert!(out[0].append(b"reply"));
        out.drain(..).for_each(|output| buffers.put_output(output));
        assert_eq!([(); 3].map(|()| buffers.call_next()), [Some(StreamToken(1)), Some(StreamToken(2)), None]);
        assert_eq!(buffers.outputs.len(), OUTPUTS_POOLED_MAX);
        assert!((0..OUTPUTS_POOLED_MAX).all(|_| buffers.take_output().is_ok_and(|output| output.is_empty())));
    }
}
