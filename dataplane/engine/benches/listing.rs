//! A table of figures, for a terminal and for a file of results: the same cells in both. What they say is its users' business.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// A table with a title and remarks.
pub struct Listing {
    pub title: String,
    pub head: Vec<String>,
    /// Each as long as `head`.
    pub rows: Vec<Vec<String>>,
    /// Below the table, one line each.
    pub remarks: Vec<String>,
}

impl Listing {
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|&text| text.to_owned()).collect();
        Self { title: title.into(), head, rows: Vec::new(), remarks: Vec::new() }
    }

    /// Prints it, first column to the left, the others to the right.
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let lines = || [&self.head].into_iter().chain(&self.rows);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        writeln!(out, "{}", self.title)?;
        for line in lines() {
            for (column, (text, width)) in line.iter().zip(&widths).enumerate() {
                if column == 0 {
                    write!(out, "{text:<width$}")?;
                } else {
                    write!(out, "  {text:>width$}")?;
                }
            }
            writeln!(out)?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(out, "{remark}"))
    }

    /// Appends it to the file as Markdown.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_to(&self, path: &Path) -> io::Result<()> {
        let mut text = format!("\n## {}\n\n| {} |\n", self.title, self.head.join(" | "));
        text += &format!("| --- {}|\n", "| ---: ".repeat(self.head.len().saturating_sub(1)));
        for row in &self.rows {
            text += &format!("| {} |\n", row.join(" | "));
        }
        if !self.remarks.is_empty() {
            text += "\n";
            self.remarks.iter().for_each(|remark| text += &format!("- {remark}\n"));
        }
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(named)?;
        file.write_all(text.as_bytes()).map_err(named)
    }
}
