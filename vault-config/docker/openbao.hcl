# OpenBao as docker-compose.yml starts it with `--profile openbao`: raft on a volume, plain HTTP inside the compose
# network and on the host's loopback. docs/docker.md says what to change for a server that others depend on.

ui           = false
api_addr     = "http://vault:8200" # the name that both servers answer to in the compose network
cluster_addr = "http://127.0.0.1:8201"

storage "raft" {
  path                   = "/openbao/file"
  node_id                = "compose"
  performance_multiplier = 1 # shortens the election of the only node
}

listener "tcp" {
  address                          = "0.0.0.0:8200" # inside the container; the host publishes it on 127.0.0.1 only
  cluster_address                  = "127.0.0.1:8201"
  tls_disable                      = true
  max_request_duration             = "10s" # no effect can appear later than this after its request
  disable_unauthed_rekey_endpoints = true
}

audit "file" "file" {
  description = "Every request and answer, secrets hashed."
  options {
    file_path = "/openbao/logs/audit.log"
  }
}
