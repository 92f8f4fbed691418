//! `domain/<D>/cdr/…`: groups of call records.

use command::{Call, Command, CommandError, Kind, Output, Table};

use super::{change_domain_ok, names, state, with};
use crate::{
    Services,
    decide::DomainCommand,
    state::{CdrGroup, CloseFile},
};

/// Groups and prefixes become parts of file names.
const LONGEST: usize = 64;

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let groups = || names(s, |d| d.cdr_groups.keys().cloned().collect());
    vec![
        Command::change(
            "domain/{domain}/cdr/add_cdr_group",
            "adds a group of call records with files of its own, or changes it; calls of nobody's group go to the \
             group named default, where there is one",
            "добавить группу CDR со своими файлами или изменить её; вызовы без группы попадают в группу default",
            with!(s, |s, call| {
                let name = file_part("group", call.get("group"))?;
                let prefix = call.opt("--prefix").map_or(Ok(String::new()), |p| file_part("--prefix", p))?;
                let close = close(call.get("mode"), call.get("value"))?;
                let group = CdrGroup { prefix, close, since: s.node.clock().now() };
                change_domain_ok(&s, &call, DomainCommand::SetCdrGroup { name, group }).await
            }),
        )
        .arg("group", Kind::Text, "its name", "имя группы")
        .names(groups())
        .arg(
            "mode",
            Kind::OneOf(&["count", "period", "time"]),
            "when a file is closed: after so many records, after so many seconds, at times of day",
            "когда файл закрывается: по числу записей, через число секунд, во время суток",
        )
        .arg("value", Kind::Text, "1000, 3600, or 00:00,12:00", "1000, 3600 или 00:00,12:00")
        .option("--prefix", Kind::Text, "what its files' names begin with", "начало имён файлов"),
        Command::change(
            "domain/{domain}/cdr/remove_cdr_group",
            "removes a group of call records; its files stay",
            "удалить группу CDR; файлы остаются",
            with!(s, |s, call| {
                change_domain_ok(&s, &call, DomainCommand::RemoveCdrGroup(call.get("group").to_owned())).await
            }),
        )
        .arg("group", Kind::Text, "its name", "имя группы")
        .names(groups()),
        Command::look(
            "domain/{domain}/cdr/list_cdr_groups",
            "lists the groups of call records",
            "список групп CDR",
            with!(s, |s, call| list(&s, &call)),
        ),
    ]
}

fn list(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let state = state(s, call)?;
    let mut table =
        Table::new(["Group", "Prefix", "Mode", "Value", "Aliases", "Trunks"]).numbers(&["Aliases", "Trunks"]);
    for (name, group) in &state.cdr_groups {
        let aliases = state.aliases.keys().filter(|a| state.cdr_group_of(a) == Some(name)).count();
        let trunks = state.trunks.values().filter(|t| t.property("cdr_group") == Some(name)).count();
        let value = match &group.close {
            CloseFile::Count(n) | CloseFile::Period(n) => n.to_string(),
            CloseFile::Time(all) => {
                let shown: Vec<String> = all.iter().map(|m| format!("{:02}:{:02}", m / 60, m % 60)).collect();
                shown.join(",")
            }
        };
        let (aliases, trunks) = (aliases.to_string(), trunks.to_string());
        table.row([name, &group.prefix, &group.close.to_string(), &value, &aliases, &trunks]);
    }
    Ok(Output::table(table))
}

fn file_part(what: &str, text: &str) -> Result<String, CommandError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.is_empty() || text.len() > LONGEST || !text.chars().all(good) {
        let wanted =
            format!("{what}: 1 to {LONGEST} Latin letters, digits, - and _ are wanted, not {text:?}");
        return Err(CommandError::Usage(wanted));
    }
    Ok(text.to_owned())
}

fn close(mode: &str, value: &str) -> Result<CloseFile, CommandError> {
    let number = |most: u32| {
        let bad =
            || CommandError::Usage(format!("{mode}: a number from 1 to {most} is wanted, not {value:?}"));
        value.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(bad)
    };
    match mode {
        "count" => Ok(CloseFile::Count(number(1_000_000)?)),
        "period" => Ok(CloseFile::Period(number(31 * 86_400)?)),
        _ => {
            let minute = |text: &str| {
                let (hours, minutes) = text.trim().split_once(':')?;
                let (h, m): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
                (h < 24 && m < 60).then_some(h * 60 + m)
            };
            let bad = || CommandError::Usage(format!("time: 00:00,12:00 is wanted, not {value:?}"));
            let mut all: Vec<u16> = value.split(',').map(minute).collect::<Option<_>>().ok_or_else(bad)?;
            all.sort_unstable();
            all.dedup();
            Ok(CloseFile::Time(all))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_closes_a_file_is_read_or_refused() {
        assert_eq!(close("count", "10").ok(), Some(CloseFile::Count(10)));
        assert_eq!(close("period", "60").ok(), Some(CloseFile::Period(60)));
        assert_eq!(close("time", "12:00,00:30,12:00").ok(), Some(CloseFile::Time(vec![30, 720])));
        for (mode, value) in [("count", "0"), ("period", "x"), ("time", "24:00"), ("time", "")] {
            assert!(close(mode, value).is_err(), "{mode} {value}");
        }
        assert!(file_part("group", "../x").is_err() && file_part("group", "a_1").is_ok());
    }
}
