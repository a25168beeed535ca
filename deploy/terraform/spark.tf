# A Yandex Data Processing cluster with Spark on YARN, for --engine spark; only where spark_enabled is true.

resource "yandex_iam_service_account" "spark" {
  count       = var.spark_enabled ? 1 : 0
  name        = "${var.name}-spark"
  description = "The hosts of the Spark cluster"
}

resource "yandex_resourcemanager_folder_iam_member" "spark" {
  for_each  = var.spark_enabled ? toset(["dataproc.agent", "dataproc.provisioner"]) : toset([])
  folder_id = var.folder_id
  role      = each.key
  member    = "serviceAccount:${yandex_iam_service_account.spark[0].id}"
}

resource "yandex_dataproc_cluster" "spark" {
  count               = var.spark_enabled ? 1 : 0
  name                = "${var.name}-spark"
  description         = "Training on archives that are too large for one machine"
  environment         = "PRODUCTION"
  bucket              = yandex_storage_bucket.archive.bucket
  zone_id             = var.zone
  service_account_id  = yandex_iam_service_account.spark[0].id
  security_group_ids  = [yandex_vpc_security_group.spark.id]
  deletion_protection = false
  labels              = var.labels

  cluster_config {
    version_id = var.spark_image == "" ? null : var.spark_image

    # Rows lie in object storage: neither HDFS nor hosts for its data are needed.
    hadoop {
      services        = ["YARN", "SPARK"]
      ssh_public_keys = [var.ssh_public_key]
      properties = {
        # All tasks of a fit must run at once, so hosts are not taken away in the middle of it.
        "spark:spark.dynamicAllocation.enabled" = "false"
      }
    }

    subcluster_spec {
      name        = "main"
      role        = "MASTERNODE"
      subnet_id   = yandex_vpc_subnet.main.id
      hosts_count = 1

      resources {
        resource_preset_id = var.spark_preset
        disk_type_id       = "network-ssd"
        disk_size          = 40
      }
    }

    subcluster_spec {
      name        = "compute"
      role        = "COMPUTENODE"
      subnet_id   = yandex_vpc_subnet.main.id
      hosts_count = 1

      resources {
        resource_preset_id = var.spark_preset
        disk_type_id       = "network-ssd"
        disk_size          = 80
      }

      autoscaling_config {
        max_hosts_count      = var.spark_hosts_max
        decommission_timeout = 600
        preemptible          = false
      }
    }
  }

  depends_on = [
    yandex_resourcemanager_folder_iam_member.spark,
    yandex_storage_bucket_iam_binding.archive,
  ]
}
