# One host that runs the MLflow server's image. Its secrets lie in Lockbox; the host asks for them at each start, with the
# identity of its service account, so that none of them stands in its metadata.

resource "yandex_container_registry" "main" {
  name   = var.name
  labels = var.labels
}

resource "yandex_iam_service_account" "mlflow" {
  name        = "${var.name}-mlflow"
  description = "The MLflow host: pulls its image, reads its secrets"
}

resource "yandex_container_registry_iam_binding" "pull" {
  registry_id = yandex_container_registry.main.id
  role        = "container-registry.images.puller"
  members     = ["serviceAccount:${yandex_iam_service_account.mlflow.id}"]
}

resource "random_password" "mlflow_admin" {
  length  = 32
  special = false
}

resource "random_password" "mlflow_session" {
  length  = 48
  special = false
}

resource "yandex_lockbox_secret" "mlflow" {
  name                = "${var.name}-mlflow"
  description         = "Passwords of the MLflow server: database, administrator, session key"
  deletion_protection = var.deletion_protection
  labels              = var.labels
}

resource "yandex_lockbox_secret_version" "mlflow" {
  secret_id = yandex_lockbox_secret.mlflow.id

  entries {
    key        = "PGPASSWORD"
    text_value = random_password.postgres.result
  }

  entries {
    key        = "MLFLOW_AUTH_ADMIN_PASSWORD"
    text_value = random_password.mlflow_admin.result
  }

  entries {
    key        = "MLFLOW_FLASK_SERVER_SECRET_KEY"
    text_value = random_password.mlflow_session.result
  }
}

resource "yandex_lockbox_secret_iam_member" "mlflow" {
  secret_id = yandex_lockbox_secret.mlflow.id
  role      = "lockbox.payloadViewer"
  member    = "serviceAccount:${yandex_iam_service_account.mlflow.id}"
}

resource "yandex_lockbox_secret_iam_member" "storage" {
  secret_id = yandex_lockbox_secret.storage.id
  role      = "lockbox.payloadViewer"
  member    = "serviceAccount:${yandex_iam_service_account.mlflow.id}"
}

data "yandex_compute_image" "container" {
  family = "container-optimized-image"
}

locals {
  mlflow_host = "${var.name}-mlflow"
  mlflow_cloud_init = templatefile("${path.module}/templates/mlflow.yaml.tftpl", {
    image          = var.mlflow_image
    ssh_public_key = var.ssh_public_key
    secret_ids     = join(" ", [yandex_lockbox_secret.mlflow.id, yandex_lockbox_secret.storage.id])
    # The address that always leads to the host that takes writes.
    postgres_host = "c-${yandex_mdb_postgresql_cluster.mlflow.id}.rw.mdb.yandexcloud.net"
    postgres_user = yandex_mdb_postgresql_user.mlflow.name
    database      = yandex_mdb_postgresql_database.mlflow.name
    bucket        = yandex_storage_bucket.mlflow.bucket
    host          = local.mlflow_host
  })
}

resource "yandex_compute_instance" "mlflow" {
  name                      = local.mlflow_host
  hostname                  = local.mlflow_host
  platform_id               = "standard-v3"
  zone                      = var.zone
  service_account_id        = yandex_iam_service_account.mlflow.id
  allow_stopping_for_update = true
  labels                    = var.labels

  resources {
    cores  = var.mlflow_cores
    memory = var.mlflow_memory_gb
  }

  boot_disk {
    initialize_params {
      image_id = data.yandex_compute_image.container.id
      size     = 30
      type     = "network-ssd"
    }
  }

  network_interface {
    subnet_id          = yandex_vpc_subnet.main.id
    security_group_ids = [yandex_vpc_security_group.mlflow.id]
    nat                = false
  }

  metadata = {
    user-data = local.mlflow_cloud_init
  }

  # Its first start needs what these allow.
  depends_on = [
    yandex_container_registry_iam_binding.pull,
    yandex_lockbox_secret_iam_member.mlflow,
    yandex_lockbox_secret_iam_member.storage,
    yandex_lockbox_secret_version.mlflow,
    yandex_iam_service_account_static_access_key.storage,
    yandex_storage_bucket_iam_binding.mlflow,
  ]
}
