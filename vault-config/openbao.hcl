# One OpenBao node on loopback: raft on disk, unsealed by a key in a file, every request in a file audit device.
# `shorthold dev up` fills in the two ports and starts it in the directory to which the relative paths belong.
# For a server of your own, change the addresses, use TLS and a seal that keeps its key elsewhere.

ui           = false
api_addr     = "http://127.0.0.1:${api_port}"
cluster_addr = "http://127.0.0.1:${cluster_port}"

storage "raft" {
  path                   = "raft"
  node_id                = "shorthold-dev"
  performance_multiplier = 1 # shortens the first election
}

listener "tcp" {
  address                          = "127.0.0.1:${api_port}"
  cluster_address                  = "127.0.0.1:${cluster_port}"
  tls_disable                      = true # nothing leaves this machine
  max_request_duration             = "10s" # no effect can appear later than this after its request
  disable_unauthed_rekey_endpoints = true
}

seal "static" {
  current_key_id = "shorthold-dev"
  current_key    = "file://seal.key"
}

audit "file" "file" {
  description = "Every request and answer, secrets hashed."
  options {
    file_path = "audit.log"
  }
}

# Done once, at the very first start. No root token remains: the holder of the bootstrap key logs in with a short JWT,
# and does everything else with `shorthold vault bootstrap`, as on a server that somebody else runs.
initialize "bootstrap" {
  request "policy" {
    operation = "update"
    path      = "sys/policies/acl/shorthold-bootstrap"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "openbao-bootstrap-policy.hcl"
      }
    }
  }

  request "mount" {
    operation = "update"
    path      = "sys/auth/shorthold-bootstrap"
    data = {
      type        = "jwt"
      description = "Trusts the key of whoever sets Shorthold up."
    }
  }

  request "trust" {
    operation = "update"
    path      = "auth/shorthold-bootstrap/config"
    data = {
      jwt_validation_pubkeys = {
        eval_source = "file"
        eval_type   = "string"
        path        = "bootstrap.pub.pem"
      }
      jwt_supported_algs = ["ES256"]
    }
  }

  request "role" {
    operation = "update"
    path      = "auth/shorthold-bootstrap/role/bootstrap"
    data = {
      role_type               = "jwt"
      user_claim              = "sub"
      bound_subject           = "bootstrap"
      bound_audiences         = ["shorthold-bootstrap"]
      clock_skew_leeway       = -1
      expiration_leeway       = -1
      not_before_leeway       = -1
      token_type              = "service"
      token_no_default_policy = true
      token_policies          = ["shorthold-bootstrap"]
      token_ttl               = "10m"
      token_explicit_max_ttl  = "10m"
    }
  }
}
