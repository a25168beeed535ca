# The managed PostgreSQL that MLflow keeps runs, registered models and accounts in.

resource "random_password" "postgres" {
  length  = 32
  special = false
}

resource "yandex_mdb_postgresql_cluster" "mlflow" {
  name                = "${var.name}-mlflow"
  environment         = "PRODUCTION"
  network_id          = yandex_vpc_network.main.id
  security_group_ids  = [yandex_vpc_security_group.postgres.id]
  deletion_protection = var.deletion_protection
  labels              = var.labels

  config {
    version                   = var.postgres_version
    backup_retain_period_days = 14

    resources {
      resource_preset_id = var.postgres_preset
      disk_type_id       = "network-ssd"
      disk_size          = var.postgres_disk_gb
    }

    # MLflow's migrations use temporary objects and locks that live as long as the session.
    pooler_config {
      pooling_mode = "SESSION"
    }

    backup_window_start {
      hours   = 1
      minutes = 0
    }
  }

  maintenance_window {
    type = "WEEKLY"
    day  = "SUN"
    hour = 3
  }

  host {
    zone             = var.zone
    subnet_id        = yandex_vpc_subnet.main.id
    assign_public_ip = false
  }
}

resource "yandex_mdb_postgresql_user" "mlflow" {
  cluster_id = yandex_mdb_postgresql_cluster.mlflow.id
  name       = "mlflow"
  password   = random_password.postgres.result
  conn_limit = 40
}

resource "yandex_mdb_postgresql_database" "mlflow" {
  cluster_id = yandex_mdb_postgresql_cluster.mlflow.id
  name       = "mlflow"
  owner      = yandex_mdb_postgresql_user.mlflow.name
}
