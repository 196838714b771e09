//! Which locations `mirror` and `auth_request` send requests to.

use nginx_conf::Directive;

use super::routes::Route;

/// Marks the routes of a server that its subrequests lead to. Locations by regular expression are not searched.
pub(crate) fn mark<'r>(server: &Directive, routes: impl Iterator<Item = &'r mut Route>) {
    let mirrors = locations_of(server, "mirror");
    let questions = locations_of(server, "auth_request");
    if mirrors.is_empty() && questions.is_empty() {
        return;
    }
    for route in routes {
        let leads_here = |found: &Vec<Vec<String>>| found.iter().any(|one| route.location.starts_with(one));
        route.is_mirror = leads_here(&mirrors);
        route.is_auth_request = leads_here(&questions);
    }
}

/// The locations that the URIs of a directive anywhere in a server lead to.
fn locations_of(server: &Directive, directive: &str) -> Vec<Vec<String>> {
    let mut uris = Vec::new();
    let mut locations = Vec::new();
    walk(server.children(), &[], &mut |one, inside| {
        if one.name.text == directive {
            uris.extend(one.arg(0).filter(|uri| *uri != "off").map(str::to_owned));
        } else if one.name.text == "location" {
            let (modifier, path) = match one.args.as_slice() {
                [path] => ("", path.text.as_str()),
                [modifier, path] => (modifier.text.as_str(), path.text.as_str()),
                _ => return,
            };
            locations.push((modifier.to_owned(), path.to_owned(), inside.to_vec()));
        }
    });
    let of_uri = |uri: &String| {
        let exact = locations.iter().find(|(modifier, path, _)| modifier == "=" && path == uri);
        let prefixes = locations.iter().filter(|(modifier, path, _)| {
            matches!(modifier.as_str(), "" | "^~") && path.starts_with('/') && uri.starts_with(path.as_str())
        });
        let found = exact.or_else(|| prefixes.max_by_key(|(_, path, _)| path.len()))?;
        Some(found.2.clone())
    };
    uris.iter().filter_map(of_uri).collect()
}

/// Calls `visit` with each directive below and the locations that it stands in; for a location, with itself among them.
fn walk(block: &[Directive], inside: &[String], visit: &mut impl FnMut(&Directive, &[String])) {
    for directive in block {
        let name = super::read::location(directive);
        let inner: Vec<String> = inside.iter().cloned().chain(name).collect();
        visit(directive, &inner);
        walk(directive.children(), &inner, visit);
    }
}
