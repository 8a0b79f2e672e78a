# What setting Shorthold up takes, and nothing it needs afterwards: mounts, trust, our own policies, and on the embedded
# server the demo's database connection and certificate authority. Whoever holds it can write policies: an operator.

path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/mounts/database" {
  capabilities = ["create", "read", "update"]
}
path "sys/mounts/pki" {
  capabilities = ["create", "read", "update"]
}
path "sys/mounts/+/tune" {
  capabilities = ["read", "update"]
}

path "sys/auth" {
  capabilities = ["read"]
}
path "sys/auth/shorthold*" {
  capabilities = ["create", "read", "update", "sudo"] # the server wants sudo for it
}
path "auth/shorthold*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}
path "sys/policies/acl" {
  capabilities = ["list"]
}
path "sys/policies/acl/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

path "identity/entity/name/shorthold*" {
  capabilities = ["create", "read", "update"]
}

path "database/config" {
  capabilities = ["list"]
}
path "database/config/*" {
  capabilities = ["create", "read", "update", "list"]
}
path "database/roles" {
  capabilities = ["list"]
}
path "database/roles/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}
path "pki/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
