//! What was lost, if anything: the answers against what is stored.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::Ordering;

use sqlx::ConnectOptions;

use super::client::{Load, Sent};
use super::cluster::Cluster;

/// All that was seen until now.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Requests that were answered with code 0.
    answered: usize,
    /// Links that these answers named.
    pub(crate) acknowledged: usize,
    /// Of these, what is not stored as it was sent.
    pub(crate) lost: usize,
    /// Requests that were not answered, at least at first.
    unanswered: usize,
    /// Of these with a key, those whose lost answer was had again, and those that were carried out then.
    repeated: usize,
    carried_out: usize,
    /// Of those without a key, those that are wholly there, and those of which nothing is.
    there: usize,
    not_there: usize,
    /// Requests of which a part is there, or that were carried out twice, or whose links and records disagree.
    broken: Vec<String>,
}

impl Account {
    pub(crate) fn is_fine(&self) -> bool {
        self.lost == 0 && self.broken.is_empty()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            acknowledged,
            lost,
            unanswered,
            repeated,
            carried_out,
            there,
            not_there,
            broken,
        } = self;
        writeln!(
            f,
            "answered      {answered} requests, acknowledged {acknowledged} links, lost {lost}"
        )?;
        writeln!(f, "not answered  {unanswered} requests")?;
        writeln!(
            f,
            "  with a key, sent again: {repeated} had been committed and were repeated, {carried_out} had not"
        )?;
        writeln!(f, "  without a key: {there} are wholly there, {not_there} are not there at all")?;
        write!(f, "by halves     {}", broken.len())
    }
}

/// What is stored of one request.
#[derive(Debug)]
struct Record {
    request_id: String,
    ids: Vec<i64>,
    pairs: Vec<(i64, i64)>,
}

pub(crate) async fn look(cluster: &Cluster, load: &Load) -> Account {
    let mut conn = cluster.options().connect().await.unwrap();
    let links: Vec<(i64, String, i64, i64)> = sqlx::query_as(
        "select link.id, key, source_id, target_id
         from instance_association link join model_association a on a.id = model_association_id",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let records: Vec<(String, String, Vec<i64>, Vec<i64>, Vec<i64>)> = sqlx::query_as(
        "select user_name, request_id, source_ids, target_ids,
             array(select id from unnest(association_ids) r, generate_series(lower(r), upper(r) - 1) id order by id)
         from audit_log",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut stored = Stored::default();
    for (id, key, source, target) in links {
        stored.sources.insert((key.clone(), source));
        stored.targets.insert((key.clone(), target));
        stored.pairs.insert((key.clone(), source, target));
        stored.links.insert(id, (key, source, target));
    }
    let mut broken = Vec::new();
    for (user, request_id, sources, targets, ids) in records {
        let pairs = sources.into_iter().zip(targets).collect();
        let record = Record { request_id, ids, pairs };
        if let Some(first) = stored.records.insert(user, record) {
            broken.push(format!("carried out twice: {first:?}"));
        }
    }
    let mut account = Account {
        broken,
        unanswered: load.unanswered.load(Ordering::SeqCst),
        ..Account::default()
    };
    for sent in load.sent.lock().unwrap().iter() {
        account.add(sent, &stored);
    }
    account
}

#[derive(Default)]
struct Stored {
    links: HashMap<i64, (String, i64, i64)>,
    pairs: HashSet<(String, i64, i64)>,
    sources: HashSet<(String, i64)>,
    targets: HashSet<(String, i64)>,
    records: HashMap<String, Record>,
}

impl Account {
    fn add(&mut self, sent: &Sent, stored: &Stored) {
        let record = stored.records.get(&sent.user);
        if let Some(record) = record
            && let Some(why) = half(sent, record, stored)
        {
            self.broken.push(format!("{why}: {sent:?}, {record:?}"));
        }
        let Some(answer) = &sent.answer else {
            *(if record.is_some() { &mut self.there } else { &mut self.not_there }) += 1;
            return;
        };
        self.answered += 1;
        let created = answer["data"]["success_created"].as_object().unwrap();
        self.acknowledged += created.len();
        for (index, id) in created {
            let (source, target) = sent.details[index.parse::<usize>().unwrap()];
            let link = stored.links.get(&id.as_i64().unwrap());
            self.lost += usize::from(link != Some(&(sent.association.to_owned(), source, target)));
        }
        let said = (created.len(), answer["request_id"].as_str().unwrap());
        let recorded = record.map_or((0, said.1), |record| (record.ids.len(), &*record.request_id));
        if said != recorded {
            self.broken.push(format!("the answer and the record disagree: {sent:?}, {record:?}"));
        }
        if sent.is_replayed {
            self.repeated += 1;
        }
        self.carried_out += usize::from(sent.was_asked_again && !sent.is_replayed);
    }
}

/// Why a request is there only in part, if it is.
fn half(sent: &Sent, record: &Record, stored: &Stored) -> Option<&'static str> {
    let of = |(source, target)| (sent.association.to_owned(), source, target);
    let is_stored = |(id, pair): (&i64, &(i64, i64))| stored.links.get(id) == Some(&of(*pair));
    if record.ids.len() != record.pairs.len()
        || !record.ids.iter().zip(&record.pairs).all(is_stored)
    {
        return Some("the record and the links disagree");
    }
    // What was not created was refused because something stands in its way, and that stands for ever.
    let is_explained = |&(source, target): &(i64, i64)| {
        let has_source = stored.sources.contains(&(sent.association.to_owned(), source));
        let has_target = stored.targets.contains(&(sent.association.to_owned(), target));
        match sent.association {
            "bk_switch_run_host" => has_source || has_target,
            "bk_switch_connect_host" => has_target,
            _ => stored.pairs.contains(&of((source, target))),
        }
    };
    (!sent.details.iter().all(is_explained)).then_some("a part is missing")
}
