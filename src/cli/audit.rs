//! `audit`: manages the audit log.

use std::io::{self, Write};

use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Outcome;
use crate::service;
use crate::service::audit::PURGE_PORTION;
use crate::service::database::Purpose;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Delete old audit records of requests and commands; the ids of their associations stay known
    Purge {
        /// Delete records before this time, which has an offset (`2026-01-31T18:00:00Z`), or before
        /// this date in UTC (`2026-01-31`); at least 26 hours ago
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        before: OffsetDateTime,
    },
}

impl AuditCommand {
    pub(super) async fn run(self) -> anyhow::Result<Outcome> {
        let Self::Purge { before } = self;
        let mut conn = super::connect(Purpose::Purge).await?;
        let purged = service::audit::purge(&mut conn, before, PURGE_PORTION).await?;
        writeln!(io::stdout(), "{purged} audit records purged")?;
        Ok(Outcome::Success)
    }
}

/// Parses a time of RFC 3339, a time as PostgreSQL writes it, or a date, which begins in UTC.
fn parse_time(text: &str) -> Result<OffsetDateTime, &'static str> {
    let mut text = text.replacen(' ', "T", 1);
    match text.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _] => text.push_str("T00:00:00Z"),
        // PostgreSQL omits the minutes of an offset if they are zero.
        [.., b'+' | b'-', _, _] => text.push_str(":00"),
        _ => {}
    }
    OffsetDateTime::parse(&text, &Rfc3339)
        .or(Err("expected a time with its offset, such as 2026-01-31T18:00:00Z, or a date"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_an_offset_and_a_date_begins_in_utc() {
        for (text, seconds) in [
            ("2026-01-31", 1_769_817_600),
            ("2026-01-31T00:00:00Z", 1_769_817_600),
            ("2026-01-31T09:30:00+08:00", 1_769_823_000),
            ("2026-01-31 00:00:01.25+00", 1_769_817_601),
            ("2026-01-31 05:30:00+05:30", 1_769_817_600),
            ("2026-01-30 19:00:00-05", 1_769_817_600),
        ] {
            assert_eq!(parse_time(text).map(OffsetDateTime::unix_timestamp), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "now",
            "yesterday",
            "-infinity",
            "1 year",
            "1769817600",
            "31.01.2026",
            "01/02/2026",
            "2026-02-30",
            "2026-01-31T00:00:00",
            "2026-01-31 00:00:00 CST",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
