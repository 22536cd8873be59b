//! The credentials of a client of the API. They have no flags, because other users of the machine
//! can read command lines.

use super::{Error, environment, value_or_file};

/// The credentials of a client of the API that the environment configures.
pub struct Credentials {
    /// The application's code.
    pub app_code: String,
    /// The application's secret.
    pub app_secret: String,
    /// The user's name.
    pub username: Option<String>,
    /// The user's login token.
    pub token: Option<String>,
}

/// The credentials that the environment configures.
pub fn credentials() -> Result<Credentials, Error> {
    let app_code = environment("CMDB_APP_CODE").ok_or(Error::Missing("CMDB_APP_CODE"))?;
    let (_, app_secret) = value_or_file("CMDB_APP_SECRET", "CMDB_APP_SECRET_FILE")?
        .ok_or(Error::Missing("CMDB_APP_SECRET"))?;
    let token = value_or_file("CMDB_BK_TOKEN", "CMDB_BK_TOKEN_FILE")?.map(|(_, token)| token);
    let username = environment("CMDB_USERNAME");
    if token.is_none() && username.is_none() {
        return Err(Error::NoUser);
    }
    Ok(Credentials { app_code, app_secret, username, token })
}
