# Two buckets, for bundles and for rows, and the account that reads and writes them.

resource "yandex_iam_service_account" "storage" {
  name        = "${var.name}-storage"
  description = "Reads and writes the buckets of MLflow and of the archive"
}

resource "yandex_storage_bucket" "mlflow" {
  bucket        = "${var.name}-mlflow-${var.bucket_suffix}"
  folder_id     = var.folder_id
  force_destroy = !var.deletion_protection

  anonymous_access_flags {
    read        = false
    list        = false
    config_read = false
  }

  # A bundle that was overwritten or deleted by mistake can be had back.
  versioning {
    enabled = true
  }

  lifecycle_rule {
    id      = "old-versions"
    enabled = true

    noncurrent_version_expiration {
      days = 30
    }
  }
}

resource "yandex_storage_bucket" "archive" {
  bucket        = "${var.name}-archive-${var.bucket_suffix}"
  folder_id     = var.folder_id
  force_destroy = !var.deletion_protection

  anonymous_access_flags {
    read        = false
    list        = false
    config_read = false
  }

  lifecycle_rule {
    id      = "old-rows"
    prefix  = "rows/"
    enabled = true

    expiration {
      days = var.archive_days
    }
  }

  lifecycle_rule {
    id                                     = "broken-uploads"
    enabled                                = true
    abort_incomplete_multipart_upload_days = 2
  }
}

# On these buckets only, not on the folder.
resource "yandex_storage_bucket_iam_binding" "mlflow" {
  bucket  = yandex_storage_bucket.mlflow.bucket
  role    = "storage.editor"
  members = ["serviceAccount:${yandex_iam_service_account.storage.id}"]
}

resource "yandex_storage_bucket_iam_binding" "archive" {
  bucket = yandex_storage_bucket.archive.bucket
  role   = "storage.editor"
  members = concat(
    ["serviceAccount:${yandex_iam_service_account.storage.id}"],
    [for account in yandex_iam_service_account.spark : "serviceAccount:${account.id}"],
  )
}

resource "yandex_lockbox_secret" "storage" {
  name                = "${var.name}-storage"
  description         = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the buckets"
  deletion_protection = var.deletion_protection
  labels              = var.labels
}

# The key goes straight into Lockbox and not into the state.
resource "yandex_iam_service_account_static_access_key" "storage" {
  service_account_id = yandex_iam_service_account.storage.id
  description        = "MLflow, retraining and fraud-producer"

  output_to_lockbox {
    secret_id            = yandex_lockbox_secret.storage.id
    entry_for_access_key = "AWS_ACCESS_KEY_ID"
    entry_for_secret_key = "AWS_SECRET_ACCESS_KEY"
  }
}
