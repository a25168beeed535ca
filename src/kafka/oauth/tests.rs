#![allow(clippy::unwrap_used)]

use super::*;

fn take(set: &[(&str, &str)]) -> (Result<Option<Method>, String>, ClientConfig) {
    let mut config = ClientConfig::new();
    for (key, value) in set {
        config.set(*key, *value);
    }
    let taken = Method::take(&mut config);
    (taken, config)
}

const OIDC: [(&str, &str); 5] = [
    ("sasl.mechanism", "OAUTHBEARER"),
    ("sasl.oauthbearer.method", "oidc"),
    ("sasl.oauthbearer.client.id", "worker"),
    ("sasl.oauthbearer.client.secret", "s&t"),
    ("sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1:1/token"),
];

#[test]
fn librdkafka_is_left_with_what_it_knows() {
    let (taken, config) = take(&OIDC);
    let Some(Method::Oidc(oidc)) = taken.unwrap() else { panic!("OIDC") };
    assert_eq!((oidc.client_id.as_str(), oidc.client_secret.as_str()), ("worker", "s&t"));
    assert_eq!(config.config_map().len(), 1, "the mechanism");
    let (taken, config) = take(&[("sasl.mechanism", "PLAIN"), ("sasl.oauthbearer.scope", "x")]);
    assert!(taken.unwrap().is_none() && config.config_map().len() == 2);
}

#[test]
fn what_no_token_can_come_of_is_named_and_secrets_are_not() {
    for (key, value, names) in [
        ("sasl.oauthbearer.client.id", "", "sasl.oauthbearer.client.id"),
        ("sasl.oauthbearer.client.secret", "", "sasl.oauthbearer.client.secret"),
        ("sasl.oauthbearer.token.endpoint.url", "ftp://x", "sasl.oauthbearer.token.endpoint.url"),
        ("sasl.oauthbearer.grant.type", "urn:ietf:params:oauth:grant-type:jwt-bearer", "sasl.oauthbearer.grant.type"),
        ("sasl.oauthbearer.assertion.file", "x", "sasl.oauthbearer.assertion.file"),
        ("sasl.oauthbearer.method", "default", "sasl.oauthbearer.method=oidc"),
        ("sasl.oauthbearer.extensions", "x", "sasl.oauthbearer.extensions"),
    ] {
        let set: Vec<_> = OIDC.into_iter().filter(|(other, _)| *other != key).chain([(key, value)]).collect();
        let reason = take(&set).0.err().unwrap();
        assert!(reason.contains(names) && !reason.contains("s&t"), "{key}={value}: {reason}");
    }
    for (config, names) in
        [("", "principal"), ("principal=w lifeSeconds=x", "lifeSeconds"), ("principal=w a=b", "a is not")]
    {
        let reason = unsecured(config).err().unwrap();
        assert!(reason.contains(names), "{config}: {reason}");
    }
}

#[tokio::test]
async fn an_unsecured_token_says_who_and_until_when() {
    let method = unsecured("principal=w lifeSeconds=8 scope=read extension_a=b").unwrap();
    let token = method.fetch(Duration::from_secs(1000)).await.unwrap();
    assert_eq!((token.principal.as_str(), token.expires), ("w", 1_008_000));
    assert_eq!(token.extensions, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let claims = claims(&token.value);
    assert_eq!((claims.sub.as_deref(), claims.exp), (Some("w"), Some(1008.0)));
    assert!(token.value.ends_with('.'), "no signature");
}

#[test]
fn forms_are_encoded() {
    assert_eq!(
        form_of(&[("grant_type", "client_credentials"), ("scope", "a b")]),
        "grant_type=client_credentials&scope=a%20b"
    );
    assert_eq!(encoded("s&t"), "s%26t");
}
