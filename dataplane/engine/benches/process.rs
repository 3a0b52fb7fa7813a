//! A process of the bench's own: the same program, started again with other arguments, that answers line by line.
//!
//! It ends when its standard input ends, so it cannot outlive the bench.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The running process, seen from the bench. Dropping it ends it.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it.
    pub fn start(arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        Ok(Self { child, input, output })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, question: &str) -> io::Result<String> {
        self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(format!("{question}\n").as_bytes())?;
        self.line()
    }

    /// Waits for what it says.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::other("a process of the bench ended by itself: see above"));
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends by itself now; it was started by us in any case.
        let _ = self.child.wait();
    }
}

/// In the process: says `greeting`, then answers each question, until the questions end.
pub fn answer(greeting: &str, mut reply: impl FnMut(&str) -> io::Result<String>) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{greeting}")?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        writeln!(output, "{}", reply(&line?)?)?;
        output.flush()?;
    }
    Ok(())
}
