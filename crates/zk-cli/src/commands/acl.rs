use serde_json::json;
use zk_client::ZkError;
use zk_proto::acl::{Acl, Id, Perms};
use zk_proto::{ErrorCode, OpCode};

use super::{Context, checked, number, tree};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::output::{Output, acl_json, perms, stat_json};

/// Reads `scheme:id:perms,...`; what is not of this form is named and left out.
pub(super) fn parse(text: &str, out: Output) -> Vec<Acl> {
    let mut acl = Vec::new();
    for entry in text.split(',') {
        let parts =
            entry.split_once(':').and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once(':')?)));
        let Some((scheme, (id, letters))) = parts else {
            out.notice(&format!("{entry} does not have the form scheme:id:perm"));
            continue;
        };
        let mut perms = Perms(0);
        for letter in letters.chars() {
            perms = perms.or(match letter {
                'r' => Perms::READ,
                'w' => Perms::WRITE,
                'c' => Perms::CREATE,
                'd' => Perms::DELETE,
                'a' => Perms::ADMIN,
                other => {
                    out.notice(&format!("Unknown perm type: {other}"));
                    Perms(0)
                }
            });
        }
        acl.push(Acl { perms, id: Id::new(scheme, id) });
    }
    acl
}

pub(super) async fn get(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let (acl, stat) = context.client.get_acl(path).await?;
    context.out.result(
        || json!({"path": path, "acl": acl_json(&acl), "stat": stat_json(&stat)}),
        |out| {
            for entry in &acl {
                // The record's own text ends its line.
                out.line(&format!(
                    "'{},'{}\n: {}",
                    entry.id.scheme,
                    entry.id.id,
                    perms(entry.perms)
                ));
            }
            if arguments.has("s") {
                out.stat(&stat);
            }
        },
    );
    Ok(())
}

pub(super) async fn set(
    context: &Context,
    arguments: &Arguments,
    path: &str,
) -> Result<(), CliError> {
    let acl = parse(arguments.word(1).unwrap_or_default(), context.out);
    let version = number(arguments, "v", -1, "an int")?;
    let path = checked(path)?;
    if acl.is_empty() {
        return Err(
            ZkError { code: ErrorCode::INVALID_ACL, op: OpCode::SET_ACL, path: None }.into()
        );
    }
    if !arguments.has("R") {
        let stat = context.client.set_acl(path, &acl, version).await?;
        context.out.result(
            || json!({"path": path, "acl": acl_json(&acl), "stat": stat_json(&stat)}),
            |out| {
                if arguments.has("s") {
                    out.stat(&stat);
                }
            },
        );
        return Ok(());
    }
    // All paths first: the new ACL may not allow to list them.
    let mut paths = Vec::new();
    tree::visit(&context.client, path, false, &mut |path| paths.push(path.to_owned())).await?;
    let mut result = Ok(());
    for path in &paths {
        match context.client.set_acl(path, &acl, version).await {
            Ok(stat) => context.out.result(
                || json!({"path": path, "acl": acl_json(&acl), "stat": stat_json(&stat)}),
                |_| (),
            ),
            Err(error) => {
                context.out.text_notice(&error.to_string());
                result = Err(if context.out.json { error.into() } else { CliError::told() });
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_contain_colons() {
        let out = Output { json: false };
        let acl = parse("digest:ann:hash=:cdrwa,ip:::1:r,nonsense,world:anyone", out);
        assert_eq!(acl.len(), 2);
        assert_eq!((acl[0].id.id.as_str(), acl[0].perms), ("ann:hash=", Perms::ALL));
        assert_eq!((acl[1].id.scheme.as_str(), acl[1].id.id.as_str()), ("ip", "::1"));
        assert_eq!(parse("auth::xr", out)[0].perms, Perms::READ);
    }
}
