//! The files of a folder, told apart by their names.

use super::collection::Collection;

/// A file of an export, according to its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileName {
    pub(super) collection: Collection,
    /// The name of the database, if the file's name has one.
    pub(super) database: Option<String>,
    /// Whether the file is compressed with gzip.
    pub(super) is_gzip: bool,
}

impl FileName {
    /// Parses `[<database>.]<collection>[.part<number>].json[.gz]`, or says why the file is not
    /// imported. The name of a database contains no dot.
    pub(super) fn parse(name: &str) -> Result<Self, &'static str> {
        const UNKNOWN: &str = "is not a known collection";
        const MONGODUMP: &str = "is from mongodump, and only files of mongoexport are imported";
        let uncompressed = name.strip_suffix(".gz").unwrap_or(name);
        if uncompressed.ends_with(".metadata.json") {
            return Err("is metadata of mongodump, which has no documents");
        }
        if let Some(stem) = uncompressed.strip_suffix(".bson") {
            return Err(if collection(stem).is_some() { MONGODUMP } else { UNKNOWN });
        }
        let stem = uncompressed.strip_suffix(".json").ok_or(UNKNOWN)?;
        let (database, collection) = collection(without_part(stem)).ok_or(UNKNOWN)?;
        Ok(Self { collection, database, is_gzip: uncompressed != name })
    }
}

/// The collection of this name, which may follow the name of its database.
fn collection(name: &str) -> Option<(Option<String>, Collection)> {
    if let Some(collection) = Collection::from_name(name) {
        return Some((None, collection));
    }
    let (database, name) = name.split_once('.')?;
    Some((Some(database.to_owned()), Collection::from_name(name)?))
}

/// Removes `.part<number>` from the end.
fn without_part(stem: &str) -> &str {
    match stem.rsplit_once(".part") {
        Some((name, number)) if number.parse::<u32>().is_ok() => name,
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_determines_its_collection() {
        let switches = "cc_ObjectBase_0_pub_bk_switch";
        for (name, expected, is_gzip) in [
            ("cc_HostBase.json", "cc_HostBase", false),
            ("cc_HostBase.json.gz", "cc_HostBase", true),
            ("cmdb.cc_HostBase.json", "cc_HostBase", false),
            ("my-cmdb_3.cc_HostBase.json", "cc_HostBase", false),
            ("cc_HostBase.part1.json", "cc_HostBase", false),
            ("cmdb.cc_HostBase.part02.json.gz", "cc_HostBase", true),
            ("cmdb.cc_ObjectBase_0_pub_bk_switch.json", switches, false),
            ("cc_ObjectBase_0_pub_bk_switch.part1.json", switches, false),
            ("cc_ObjectBase_0_pub_a.b.json", "cc_ObjectBase_0_pub_a.b", false),
            ("x.cc_ObjectBase_0_pub_a.b.part1.json", "cc_ObjectBase_0_pub_a.b", false),
            ("cc_ObjectBase_a.b_pub_c.json", "cc_ObjectBase_a.b_pub_c", false),
            ("cc_ObjectBase_0_pub_a.part.json", "cc_ObjectBase_0_pub_a.part", false),
            ("cc_InstAsst.json", "cc_InstAsst", false),
        ] {
            let collection = Collection::from_name(expected).unwrap();
            let file = FileName::parse(name).unwrap();
            assert_eq!((file.collection, file.is_gzip), (collection, is_gzip), "{name}");
            let database = name.split_once(".cc_").map(|(database, _)| database.to_owned());
            assert_eq!(file.database, database, "{name}");
        }
    }

    #[test]
    fn the_name_of_another_file_determines_why_it_is_not_imported() {
        let metadata = "is metadata of mongodump, which has no documents";
        let bson = "is from mongodump, and only files of mongoexport are imported";
        let unknown = "is not a known collection";
        for (name, reason) in [
            ("cc_HostBase.metadata.json", metadata),
            ("cc_ObjectBase_0_pub_a.metadata.json.gz", metadata),
            ("cc_HostBase.bson", bson),
            ("cmdb.cc_HostBase.bson.gz", bson),
            ("oplog.bson", unknown),
            ("cc_Something.json", unknown),
            ("a.b.cc_HostBase.json", unknown),
            ("cc_HostBase.part.json", unknown),
            ("cc_HostBase.part1.part2.json", unknown),
            ("cc_HostBase.csv", unknown),
            ("cc_HostBase", unknown),
            (".json", unknown),
            ("", unknown),
        ] {
            assert_eq!(FileName::parse(name), Err(reason), "{name}");
        }
    }
}
